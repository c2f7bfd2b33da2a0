//! What this machine offers, found out by trying.
//!
//! [`examine`] opens sockets on loopback addresses, sends through them, and looks at limits. The result is plain data; a
//! program prints [`Report::checks`], each with what was found and, where something is short, what helps.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use courser_core::ids::Ecn;

use crate::net::adapter::{Offload, Outgoing};
use crate::net::os;
use crate::net::socket::{BufferSize, Outcome, Slots, Socket, SocketConfig};

/// How long a datagram on a loopback address may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Datagrams of the train that is sent on trial.
const TRIAL_DATAGRAMS: usize = 4;

/// Size of these datagrams.
const TRIAL_SIZE: usize = 1200;

/// Fewer open files than this are short for a server.
const OPEN_FILES_WANTED: u64 = 1024;

/// A coarser clock than this spoils pacing and round-trip times.
const CLOCK_STEP_WANTED: Duration = Duration::from_micros(10);

/// What was found out about one address family on its loopback address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// What the socket can do at once, as the system says.
    pub offload: Offload,
    /// Whether a train of several datagrams left in one call.
    pub train_sent: bool,
    /// Datagrams of the train that arrived.
    pub arrived: usize,
    /// Whether several datagrams arrived in one slot.
    pub train_received: bool,
    /// Whether the ECN mark arrived.
    pub ecn: bool,
    /// Whether the system told to which address the datagrams were sent.
    pub packet_info: bool,
    /// Largest datagram that the loopback link takes, in bytes of UDP payload.
    pub largest_datagram: usize,
}

/// What was found out about this machine.
#[derive(Debug)]
pub struct Report {
    /// IPv4, or why there is none.
    pub v4: io::Result<Family>,
    /// IPv6, or why there is none.
    pub v6: io::Result<Family>,
    /// Whether one socket takes both families.
    pub dual_stack: bool,
    /// Receive buffer.
    pub receive_buffer: BufferSize,
    /// Send buffer.
    pub send_buffer: BufferSize,
    /// Files that the process may have open now; `None` for unlimited or unknown.
    pub open_files: Option<u64>,
    /// Files that it may allow itself.
    pub open_files_max: Option<u64>,
    /// The smallest step that the clock was seen to make.
    pub clock_step: Duration,
    /// The step that the system claims.
    pub clock_step_claimed: Option<Duration>,
}

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good,
    /// It works, slower or with less.
    Short,
    /// Not there.
    Missing,
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What helps, when something does.
    pub remedy: Option<String>,
}

/// Looks at everything. Takes a fraction of a second.
///
/// # Errors
/// When not even a UDP socket can be had.
pub fn examine() -> io::Result<Report> {
    let v4 = examine_family(Ipv4Addr::LOCALHOST.into());
    let v6 = examine_family(Ipv6Addr::LOCALHOST.into());
    let ip = if v4.is_ok() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let socket = Socket::bind(&SocketConfig::new(SocketAddr::new(ip, 0)))?;
    let (open_files, open_files_max) = os::open_files();
    Ok(Report {
        dual_stack: v4.is_ok() && is_dual_stack().unwrap_or(false),
        v4,
        v6,
        receive_buffer: socket.receive_buffer(),
        send_buffer: socket.send_buffer(),
        open_files,
        open_files_max,
        clock_step: measure_clock(),
        clock_step_claimed: os::clock_step(),
    })
}

/// Sends a train to itself on a wildcard socket's loopback address and looks at what arrives.
fn examine_family(ip: IpAddr) -> io::Result<Family> {
    let any = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
    let config = SocketConfig { dual_stack: false, ..SocketConfig::new(SocketAddr::new(any, 0)) };
    let mut receiver = Socket::bind(&config)?;
    let mut sender = Socket::bind(&SocketConfig::new(SocketAddr::new(ip, 0)))?;
    let offload = sender.offload();
    let to = SocketAddr::new(ip, receiver.local_addr().port());
    let bytes = [0x55; TRIAL_DATAGRAMS * TRIAL_SIZE];
    let train = Outgoing { to, from: None, ecn: Ecn::Ect0, segment: Some(TRIAL_SIZE), bytes: &bytes };
    let outcome = sender.send(&train, &mut 0);
    let mut family = Family {
        offload: Offload { send_segments: sender.offload().send_segments, ..offload },
        train_sent: outcome == Outcome::Sent && offload.send_segments > 1,
        arrived: 0,
        train_received: false,
        ecn: false,
        packet_info: false,
        largest_datagram: largest_datagram(&mut sender, to),
    };
    let mut slots = Slots::new(TRIAL_DATAGRAMS);
    let began = Instant::now();
    while family.arrived < TRIAL_DATAGRAMS && began.elapsed() < PATIENCE {
        if receiver.receive(&mut slots)? == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        for (arrival, bytes) in slots.trains() {
            if arrival.remote == sender.local_addr() && arrival.stride == TRIAL_SIZE {
                let datagrams = bytes.len().div_ceil(TRIAL_SIZE);
                family.arrived += datagrams;
                family.train_received |= datagrams > 1;
                family.ecn |= arrival.ecn == Ecn::Ect0;
                family.packet_info |= arrival.local == Some(ip);
            }
        }
    }
    Ok(family)
}

/// The largest payload that one call takes, by halving; what the system refuses above is its limit or the link's.
fn largest_datagram(sender: &mut Socket, to: SocketAddr) -> usize {
    let bytes = vec![0u8; 65_536];
    let mut passes = |size: usize| {
        let out = Outgoing { to, from: None, ecn: Ecn::NotEct, segment: None, bytes: &bytes[..size] };
        matches!(sender.send(&out, &mut 0), Outcome::Sent)
    };
    let (mut good, mut bad) = (0, 65_536);
    while bad - good > 1 {
        let middle = usize::midpoint(good, bad);
        if passes(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    good
}

/// Whether an IPv6 wildcard socket hears IPv4.
fn is_dual_stack() -> io::Result<bool> {
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let mut receiver = Socket::bind(&SocketConfig::new(any))?;
    let mut sender = Socket::bind(&SocketConfig::new(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)))?;
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), receiver.local_addr().port());
    let out = Outgoing { to, from: None, ecn: Ecn::NotEct, segment: None, bytes: b"hello" };
    sender.send(&out, &mut 0);
    let mut slots = Slots::new(1);
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        receiver.receive(&mut slots)?;
        if slots.trains().any(|(a, _)| a.remote == sender.local_addr()) {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}

/// The smallest difference between two readings of the clock that differ.
fn measure_clock() -> Duration {
    let mut smallest = Duration::MAX;
    for _ in 0..100 {
        let first = Instant::now();
        let step = loop {
            let step = first.elapsed();
            if !step.is_zero() {
                break step;
            }
        };
        smallest = smallest.min(step);
    }
    smallest
}

impl Report {
    /// The report as lines.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        let mut checks = vec![family_check("IPv4", &self.v4), family_check("IPv6", &self.v6)];
        let families: Vec<&Family> = [&self.v4, &self.v6].into_iter().filter_map(|f| f.as_ref().ok()).collect();
        if !families.is_empty() {
            checks.push(Check {
                name: "dual stack",
                state: if self.dual_stack { State::Good } else { State::Short },
                found: if self.dual_stack { "one socket takes both families" } else { "a socket takes one family" }
                    .into(),
                remedy: (!self.dual_stack).then(|| "bind one socket for each family".into()),
            });
            checks.extend(feature_checks(&families));
        }
        checks.push(buffer_check("receive buffer", self.receive_buffer, "net.core.rmem_max"));
        checks.push(buffer_check("send buffer", self.send_buffer, "net.core.wmem_max"));
        checks.push(self.files_check());
        let coarse = self.clock_step > CLOCK_STEP_WANTED;
        checks.push(Check {
            name: "clock",
            state: if coarse { State::Short } else { State::Good },
            found: format!("steps of {:?}", self.clock_step),
            remedy: coarse.then(|| "choose a finer clock source of the system".into()),
        });
        checks
    }

    fn files_check(&self) -> Check {
        let short = self.open_files.is_some_and(|n| n < OPEN_FILES_WANTED);
        let number = |n: Option<u64>| n.map_or("no limit known".into(), |n| n.to_string());
        Check {
            name: "open files",
            state: if short { State::Short } else { State::Good },
            found: format!("{} (at most {})", number(self.open_files), number(self.open_files_max)),
            remedy: short.then(|| format!("ulimit -n {OPEN_FILES_WANTED}, or LimitNOFILE= of the service")),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Good => "good",
            State::Short => "short",
            State::Missing => "missing",
        };
        write!(f, "{:<8}{:<20}{}", state, self.name, self.found)?;
        match &self.remedy {
            Some(remedy) => write!(f, " — {remedy}"),
            None => Ok(()),
        }
    }
}

/// Whether a family works at all.
fn family_check(name: &'static str, family: &io::Result<Family>) -> Check {
    match family {
        Ok(family) if family.arrived > 0 => Check {
            name,
            state: State::Good,
            found: format!("loopback takes datagrams up to {} bytes", family.largest_datagram),
            remedy: None,
        },
        Ok(_) => Check {
            name,
            state: State::Missing,
            found: "nothing arrives on the loopback address".into(),
            remedy: Some("look at the packet filter's rules for the loopback link".into()),
        },
        Err(e) => Check { name, state: State::Missing, found: e.to_string(), remedy: None },
    }
}

/// The features that every family has to have in order to be good.
fn feature_checks(families: &[&Family]) -> Vec<Check> {
    let all = |holds: fn(&Family) -> bool| families.iter().all(|f| holds(f));
    let feature = |name, holds: fn(&Family) -> bool, good: &str, short: &str, remedy: &str| {
        let is_good = all(holds);
        Check {
            name,
            state: if is_good { State::Good } else { State::Short },
            found: if is_good { good } else { short }.into(),
            remedy: (!is_good).then(|| remedy.into()),
        }
    };
    let newer = "a newer kernel (Linux 5.0), and a build without the feature `portable`";
    vec![
        feature("send offload", |f| f.train_sent, "trains leave in one call", "one call per datagram", newer),
        feature("receive offload", |f| f.train_received, "trains arrive in one call", "one slot per datagram", newer),
        feature("ECN", |f| f.ecn, "marks arrive", "marks do not arrive", newer),
        feature(
            "packet information",
            |f| f.packet_info,
            "the destination address is told",
            "the destination address is not told",
            "on machines with several addresses bind each address",
        ),
    ]
}

/// One of the socket's buffers.
fn buffer_check(name: &'static str, size: BufferSize, sysctl: &str) -> Check {
    let is_good = size.achieved >= size.wanted;
    Check {
        name,
        state: if is_good { State::Good } else { State::Short },
        found: format!("{} KiB of {} KiB", size.achieved >> 10, size.wanted >> 10),
        remedy: (!is_good && cfg!(target_os = "linux")).then(|| format!("sysctl -w {sysctl}={}", size.wanted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_examined() {
        let report = examine().unwrap();
        let v4 = report.v4.as_ref().expect("IPv4 on the loopback link");
        assert_eq!(v4.arrived, TRIAL_DATAGRAMS);
        assert!(v4.largest_datagram >= TRIAL_SIZE);
        assert!(report.clock_step > Duration::ZERO);
        let checks = report.checks();
        assert!(checks.iter().any(|c| c.name == "receive buffer" && c.found.contains("KiB")));
        if cfg!(feature = "portable") {
            assert!(!v4.train_sent && !v4.ecn && !v4.packet_info);
            assert!(checks.iter().any(|c| c.name == "send offload" && c.state == State::Short && c.remedy.is_some()));
        } else if cfg!(target_os = "linux") {
            assert!(v4.ecn && v4.packet_info);
            assert_eq!(v4.train_sent, v4.offload.send_segments > 1);
        }
    }

    #[test]
    fn what_is_short_comes_with_a_remedy() {
        let family = Family {
            offload: Offload { send_segments: 1, receive_segments: 1 },
            train_sent: false,
            arrived: 4,
            train_received: false,
            ecn: false,
            packet_info: false,
            largest_datagram: 1472,
        };
        let small = BufferSize { wanted: 4 << 20, achieved: 208 << 10 };
        let report = Report {
            v4: Ok(family),
            v6: Err(io::ErrorKind::AddrNotAvailable.into()),
            dual_stack: false,
            receive_buffer: small,
            send_buffer: small,
            open_files: Some(256),
            open_files_max: None,
            clock_step: Duration::from_millis(16),
            clock_step_claimed: None,
        };
        let checks = report.checks();
        assert_eq!(checks.iter().filter(|c| c.state == State::Missing).count(), 1, "only IPv6 is missing");
        for check in checks.iter().filter(|c| c.state == State::Short) {
            let buffers_elsewhere = check.name.contains("buffer") && !cfg!(target_os = "linux");
            assert!(check.remedy.is_some() || buffers_elsewhere, "{check}");
        }
        if cfg!(target_os = "linux") {
            assert!(checks.iter().any(|c| c.to_string().contains("sysctl -w net.core.rmem_max=4194304")));
        }
    }
}
