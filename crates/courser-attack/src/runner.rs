//! Plays scripts with honest clients beside them, and judges what came of it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use courser_core::ids::Side;

use crate::hand::socket;
use crate::identity::Identity;
use crate::scripts::{Bound, Program, Script, Tally, as_client, as_server};
use crate::victim::{Build, Honest, Usage, Victim, honest};
use crate::web;
use crate::web::origin::Origin;
use crate::web::site::{PAGE, Site};

/// What a victim may take more at its peak than before, in KiB: 5,000 half-open handshakes and their TLS among it.
const GROWTH_KIB: u64 = 64 << 10;
/// How long a client may take to end once its server is hostile: its own limit is three seconds.
const CLIENT_ENDS: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Clone, Debug)]
pub struct Report {
    /// Name of the script.
    pub name: &'static str,
    /// The hostile end.
    pub role: Side,
    /// What was done.
    pub tally: Option<Tally>,
    /// The victim before, and after.
    pub usage: [Usage; 2],
    /// What honest clients saw meanwhile, if the victim is a server.
    pub honest: Option<Honest>,
    /// What as many saw before.
    pub quiet: Option<Honest>,
    /// Exit code of a victim that is a client.
    pub exit: Option<i32>,
    /// What is wrong; empty when nothing is.
    pub wrong: Vec<String>,
}

impl Report {
    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name,
            "role": format!("{:?}", self.role).to_lowercase(),
            "sent": self.tally.as_ref().map(|t| t.sent),
            "sent_bytes": self.tally.as_ref().map(|t| t.sent_bytes),
            "heard_bytes": self.tally.as_ref().map(|t| t.heard_bytes),
            "code": self.tally.as_ref().and_then(|t| t.code),
            "rss_before_kib": self.usage[0].rss_kib,
            "rss_peak_kib": self.usage[1].peak_kib,
            "rss_after_kib": self.usage[1].rss_kib,
            "cpu_ms": self.usage[1].cpu_ms - self.usage[0].cpu_ms.min(self.usage[1].cpu_ms),
            "honest_p99_us": self.honest.map(|h| h.p99_us),
            "quiet_p99_us": self.quiet.map(|h| h.p99_us),
            "exit_code": self.exit,
            "wrong": self.wrong,
        })
    }

    /// As a line of a table.
    #[must_use]
    pub fn line(&self) -> String {
        let sent = self.tally.as_ref().map_or(0, |t| t.sent);
        let code = self.tally.as_ref().and_then(|t| t.code).map_or("-".to_owned(), |c| format!("{c:#x}"));
        let p99 = |of: Option<Honest>| of.map_or("-".to_owned(), |h| format!("{:.1}", h.p99_us / 1000.0));
        format!(
            "{:<26} {:<6} {:>7} {:>6} {:>7} {:>7} {:>7} {:>6} {:>8} {:>8}  {}",
            self.name,
            format!("{:?}", self.role).to_lowercase(),
            sent,
            code,
            self.usage[0].rss_kib,
            self.usage[1].peak_kib,
            self.usage[1].rss_kib,
            self.usage[1].cpu_ms - self.usage[0].cpu_ms.min(self.usage[1].cpu_ms),
            p99(self.quiet),
            p99(self.honest),
            if self.wrong.is_empty() { "well".to_owned() } else { self.wrong.join("; ") }
        )
    }
}

/// Heads of the columns of [`Report::line`].
#[must_use]
pub fn heads() -> String {
    format!(
        "{:<26} {:<6} {:>7} {:>6} {:>7} {:>7} {:>7} {:>6} {:>8} {:>8}",
        "script", "role", "packets", "code", "KiB", "peak", "after", "cpu ms", "quiet ms", "p99 ms"
    )
}

/// Plays a script to a fresh victim, with so many honest connections beside it where the victim is a server.
///
/// # Errors
/// The command does not start, or the system refuses sockets.
pub fn play(courser: &Build, script: &Script, bound: Bound, connections: u32) -> io::Result<Report> {
    if script.role.is_server() {
        to_client(courser, script, bound)
    } else {
        to_server(courser, script, bound, connections)
    }
}

/// A server under attack, and what belongs to it.
struct Target {
    server: Victim,
    address: SocketAddr,
    site: Option<Site>,
    origin: Option<Origin>,
}

impl Target {
    fn new(courser: &Build, program: Program) -> io::Result<Self> {
        let site = if program == Program::Serve { Some(Site::new()?) } else { None };
        let origin = if program == Program::Proxy { Some(Origin::new()?) } else { None };
        let server = match (&site, &origin) {
            (Some(site), _) => Victim::serve(courser, &site.root())?,
            (_, Some(origin)) => Victim::proxy(courser, origin.address)?,
            _ => Victim::server(courser)?,
        };
        let address = server.address.ok_or_else(|| io::Error::other("a server has an address"))?;
        Ok(Self { server, address, site, origin })
    }

    fn honest(&self, courser: &Build, connections: u32) -> io::Result<Honest> {
        if self.site.is_some() || self.origin.is_some() {
            return web::honest::honest(self.address, "/", PAGE.as_bytes(), connections);
        }
        honest(courser, self.address, connections)
    }
}

fn to_server(courser: &Build, script: &Script, bound: Bound, connections: u32) -> io::Result<Report> {
    let mut target = Target::new(courser, script.victim)?;
    // The first connections take what is taken once.
    let quiet = target.honest(courser, connections)?;
    let before = target.server.usage();
    let (of, attacker, address) = (*script, std::thread::Builder::new().name("attacker".to_owned()), target.address);
    let attacker = attacker.spawn(move || as_client(&of, address, bound))?;
    let beside = target.honest(courser, connections)?;
    let tally = attacker.join().map_err(|_| io::Error::other("the attacker fell over"))?;
    let mut report = Report {
        name: script.name,
        role: script.role,
        tally: None,
        usage: [before, target.server.usage()],
        honest: Some(beside),
        quiet: Some(quiet),
        exit: None,
        wrong: Vec::new(),
    };
    if !target.server.lives() {
        report.wrong.push("the server is gone".to_owned());
    }
    if !(quiet.all && beside.all) {
        report.wrong.push("honest connections failed".to_owned());
    }
    if !target.honest(courser, 5)?.all {
        report.wrong.push("honest connections failed afterwards".to_owned());
    }
    if target.origin.is_some_and(|o| o.smuggled()) {
        report.wrong.push("the origin saw a request that nobody made".to_owned());
    }
    judge(&mut report, script, tally);
    Ok(report)
}

fn to_client(courser: &Build, script: &Script, bound: Bound) -> io::Result<Report> {
    let (socket, identity) = (socket()?, Identity::new()?);
    let address = socket.local_addr()?;
    let mut client = match script.victim {
        Program::Get(more) => Victim::get(courser, address, &identity.certificate, more)?,
        _ => Victim::client(courser, address)?,
    };
    let of = *script;
    let attacker = std::thread::spawn(move || as_server(&of, socket, &identity, bound));
    // Of a client that has just begun.
    let before = client.usage();
    let mut after = before;
    while !attacker.is_finished() {
        std::thread::sleep(Duration::from_millis(2));
        let now = client.usage();
        if now.rss_kib > 0 {
            after = now;
        }
    }
    let tally = attacker.join().map_err(|_| io::Error::other("the attacker fell over"))?;
    let exit = client.end(CLIENT_ENDS);
    let mut report = Report {
        name: script.name,
        role: script.role,
        tally: None,
        usage: [before, after],
        honest: None,
        quiet: None,
        exit,
        wrong: Vec::new(),
    };
    // An error with a code of its own: neither success nor a signal.
    if !exit.is_some_and(|code| (1..=20).contains(&code)) {
        report.wrong.push(format!("the client ended with {exit:?}"));
    }
    judge(&mut report, script, tally);
    Ok(report)
}

fn judge(report: &mut Report, script: &Script, tally: io::Result<Tally>) {
    let grown = report.usage[1].peak_kib.saturating_sub(report.usage[0].rss_kib);
    if grown > GROWTH_KIB {
        report.wrong.push(format!("{grown} KiB more"));
    }
    match tally {
        Err(error) => report.wrong.push(format!("the attacker: {error}")),
        Ok(tally) => {
            if !script.close.allows(tally.code) {
                report.wrong.push(format!("closed with {:x?} instead of {:x?}", tally.code, script.close));
            }
            report.tally = Some(tally);
        }
    }
}
