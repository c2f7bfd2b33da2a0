//! Asks a server which versions it speaks, without a handshake: a datagram of a version that nobody speaks makes every
//! server answer with its list (RFC 9000 section 6.1). Only what is the same in all versions is used (RFC 8999).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use courser::net::socket::SocketConfig;
use courser_core::config::MIN_DATAGRAM;
use courser_core::ids::Version;
use courser_core::wire::header::{self, Header};

use crate::failure::{Failure, Outcome};

/// A version of the form that is reserved for exactly this (RFC 9000 section 15).
const NOBODYS: u32 = 0x1a2a_3a4a;
/// Length of our connection IDs.
const CID_LEN: usize = 8;
/// When the question is asked again, after twice that, and so on.
const AGAIN: Duration = Duration::from_millis(250);
/// Versions of an answer that are kept.
const VERSIONS_MAX: usize = 64;

/// What the server speaks, and how long the answer took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As the server lists them.
    pub versions: Vec<Version>,
    /// From the question that was answered.
    pub round_trip: Duration,
}

/// Asks until there is an answer; `None` when the server tells nothing within `patience`.
///
/// # Errors
/// Nothing listens there, or there is no socket to be had.
pub fn ask(addr: SocketAddr, patience: Duration) -> Outcome<Option<Answer>> {
    let local = SocketConfig::towards(addr).local;
    let socket = UdpSocket::bind(local).map_err(|e| Failure::from_bind(local, &e))?;
    let unreachable = |e: &std::io::Error| Failure::Unreachable { addr, why: e.to_string() };
    socket.connect(addr).map_err(|e| unreachable(&e))?;
    let ids = [random_id(), random_id()];
    let question = question(&ids);
    let (start, mut pause) = (Instant::now(), AGAIN);
    while start.elapsed() < patience {
        let asked = Instant::now();
        // Errors of earlier datagrams are told on later calls; the wait below finds out.
        let _ = socket.send(&question);
        let until = (asked + pause).min(start + patience);
        pause *= 2;
        if let Some(versions) = wait(&socket, &ids, until).map_err(|e| match e.kind() {
            ErrorKind::ConnectionRefused => Failure::NothingListens { peer: addr.to_string() },
            _ => unreachable(&e),
        })? {
            return Ok(Some(Answer { versions, round_trip: asked.elapsed() }));
        }
    }
    Ok(None)
}

/// Reads until an answer to our question comes.
fn wait(socket: &UdpSocket, ids: &[[u8; CID_LEN]; 2], until: Instant) -> std::io::Result<Option<Vec<Version>>> {
    let mut buf = [0; 1500];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut buf) {
            Ok(n) => {
                if let Some(versions) = versions(&buf[..n], ids) {
                    return Ok(Some(versions));
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A datagram that looks like the first of a connection in [`NOBODYS`] version. Servers answer only what is as large as
/// a real one.
fn question(ids: &[[u8; CID_LEN]; 2]) -> Vec<u8> {
    let mut d = vec![0xc0];
    d.extend(NOBODYS.to_be_bytes());
    for id in ids {
        d.push(CID_LEN as u8);
        d.extend(id);
    }
    d.resize(usize::from(MIN_DATAGRAM), 0);
    d
}

/// The list in an answer to our question; anything else is somebody else's datagram.
fn versions(datagram: &[u8], ids: &[[u8; CID_LEN]; 2]) -> Option<Vec<Version>> {
    match header::decode(datagram, CID_LEN).ok()? {
        Header::VersionNegotiation { dcid, scid, versions } if dcid == ids[1] && scid == ids[0] => {
            Some(versions.take(VERSIONS_MAX).collect())
        }
        _ => None,
    }
}

/// Eight bytes that nobody can guess before; the standard library seeds its hashers from the system's randomness.
fn random_id() -> [u8; CID_LEN] {
    RandomState::new().build_hasher().finish().to_be_bytes()
}

/// A list of versions for people, with those left out that only keep middleboxes flexible.
#[must_use]
pub fn worded(versions: &[Version]) -> String {
    let reserved = |v: &Version| v.0 & 0x0f0f_0f0f == 0x0a0a_0a0a;
    let known: Vec<String> = versions.iter().filter(|v| !reserved(v)).map(|v| format!("{v:?}")).collect();
    if known.is_empty() { "none that is known".into() } else { known.join(", ") }
}

#[cfg(test)]
mod tests {
    use courser_core::wire::Writer;

    use super::*;

    /// A server that answers the n-th datagram, after one that is not for us.
    fn server(answer_at: usize) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buf = [0; 2000];
            for _ in 0..answer_at {
                socket.recv_from(&mut buf).unwrap();
            }
            let (n, from) = socket.recv_from(&mut buf).unwrap();
            assert_eq!(n, 1200);
            let Ok(Header::UnknownVersion { version, dcid, scid }) = header::decode(&buf[..n], 8) else { panic!() };
            assert_eq!(version, Version(NOBODYS));
            let versions = [Version::V1, Version(0x4a4a_4a4a), Version::V2, Version(0x1234)];
            for (to, from_id) in [(b"somebody".as_slice(), dcid), (scid, dcid)] {
                let mut out = [0; 200];
                let mut w = Writer::new(&mut out);
                header::write_version_negotiation(&mut w, to, from_id, &versions, 0).unwrap();
                socket.send_to(w.written(), from).unwrap();
            }
        });
        addr
    }

    #[test]
    fn a_server_tells_its_versions() {
        let a = ask(server(0), Duration::from_secs(10)).unwrap().unwrap();
        assert_eq!(a.versions.len(), 4);
        assert_eq!(worded(&a.versions), "v1, v2, 0x00001234");
        assert!(a.round_trip < Duration::from_secs(5));
    }

    #[test]
    fn a_lost_question_is_asked_again() {
        assert!(ask(server(1), Duration::from_secs(10)).unwrap().is_some());
    }

    #[test]
    fn silence_is_no_answer_and_a_closed_port_is_told() {
        let quiet = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = quiet.local_addr().unwrap();
        assert_eq!(ask(addr, Duration::from_millis(50)), Ok(None));
        drop(quiet);
        let outcome = ask(addr, Duration::from_secs(5));
        if cfg!(target_os = "linux") {
            let e = outcome.unwrap_err();
            assert_eq!(e.code(), 4);
            assert!(e.to_string().contains("nothing listens"), "{e}");
        }
    }

    #[test]
    fn versions_that_mean_nothing_are_left_out() {
        assert_eq!(worded(&[Version(0xdada_dada)]), "none that is known");
    }
}
