//! Honest HTTP/3 clients: a page each, on a connection each.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use courser_core::config::Settings;
use courser_core::ids::Dir;
use courser_testing::web::headers;

use super::bytes::{self, SETTINGS};
use crate::guest::{End, Guest};
use crate::victim::Honest;

/// Connections at a time.
const BESIDE: u32 = 5;
/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer as far as it is of interest here.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Whether the head says 200.
    pub fine: bool,
    /// The content.
    pub body: Vec<u8>,
    /// How the stream ended.
    pub end: Option<End>,
}

/// Opens the control stream, as each HTTP/3 endpoint has to.
///
/// # Errors
/// Those of the system.
pub fn greet(guest: &mut Guest) -> io::Result<()> {
    let Some(id) = guest.open_until(Dir::Uni, Instant::now() + PATIENCE)? else {
        return Err(io::Error::other("no stream for SETTINGS"));
    };
    guest.write(id, SETTINGS);
    guest.turn(Duration::ZERO).map(|_| ())
}

/// Takes one page on a connection of its own.
///
/// # Errors
/// Those of the system; a handshake that fails.
pub fn page(server: SocketAddr, path: &str) -> io::Result<Page> {
    let until = Instant::now() + PATIENCE;
    let mut guest = Guest::connect(server, "h3", &Settings::default())?;
    greet(&mut guest)?;
    let Some(id) = guest.open_until(Dir::Bi, until)? else { return Err(io::Error::other("no stream")) };
    let request = headers(&bytes::head("GET", path));
    guest.write(id, &request);
    guest.finish(id);
    let (answer, end) = guest.read_until(id, until)?;
    guest.close();
    Ok(read_answer(&answer, end))
}

/// Takes an answer apart.
#[must_use]
pub fn read_answer(answer: &[u8], end: Option<End>) -> Page {
    let mut page = Page { end, ..Page::default() };
    for (kind, payload) in bytes::frames(answer) {
        match kind {
            0 => page.body.extend_from_slice(payload),
            // Index 25 of the static table is `:status 200`; a client that allows no dynamic table is told nothing else.
            1 => page.fine |= payload.contains(&0xd9),
            _ => {}
        }
    }
    page
}

/// So many pages, five at a time: whether all were whole, and how long they took from the first packet on.
///
/// # Errors
/// Those of the system.
pub fn honest(server: SocketAddr, path: &str, content: &[u8], connections: u32) -> io::Result<Honest> {
    let one = || -> (bool, Duration) {
        let begin = Instant::now();
        let fine = page(server, path).is_ok_and(|p| p.fine && p.end == Some(End::Fin) && p.body == content);
        (fine, begin.elapsed())
    };
    let next = std::sync::atomic::AtomicU32::new(0);
    let results = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..BESIDE.min(connections) {
            scope.spawn(|| {
                while next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < connections {
                    let result = one();
                    results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(result);
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(_, time)| *time);
    let at = (results.len() * 99 / 100).min(results.len().saturating_sub(1));
    let p99 = results.get(at).map_or(Duration::ZERO, |(_, time)| *time);
    Ok(Honest { all: results.iter().all(|(fine, _)| *fine), p99_us: p99.as_secs_f64() * 1e6 })
}
