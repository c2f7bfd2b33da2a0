//! What the HTTP/3 benchmark programs have in common: one command line, one request, one response, one report.
//!
//! ```text
//! PROGRAM server --listen IP:PORT --cert PEM --key PEM [--body N]
//! PROGRAM client --connect IP:PORT --count N --concurrency C [--body N]
//! ```
//!
//! The server prints `ready`, answers every request with a body of N bytes (100), and runs until it is killed. The client makes
//! a tenth of the requests to warm up, then N over one connection, C at a time, and prints one line of JSON.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The command line.
#[derive(Clone, Debug)]
pub struct Opts {
    pub server: bool,
    pub addr: SocketAddr,
    pub cert: String,
    pub key: String,
    pub count: u64,
    pub concurrency: u64,
    pub body: usize,
}

/// Reads it; ends the program when it makes no sense.
pub fn opts() -> Opts {
    let mut args = std::env::args().skip(1);
    let server = match args.next().as_deref() {
        Some("server") => true,
        Some("client") => false,
        _ => usage("the first word is server or client"),
    };
    let mut o = Opts {
        server,
        addr: ([127, 0, 0, 1], 4433).into(),
        cert: String::new(),
        key: String::new(),
        count: 100_000,
        concurrency: 32,
        body: 100,
    };
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_else(|| usage(&format!("{name} has no value")));
        let number = || value.parse().unwrap_or_else(|_| usage(&format!("{value} is no number")));
        match name.as_str() {
            "--listen" | "--connect" => o.addr = value.parse().unwrap_or_else(|_| usage(&format!("{value} is no address"))),
            "--cert" => o.cert = value,
            "--key" => o.key = value,
            "--count" => o.count = number(),
            "--concurrency" => o.concurrency = number(),
            "--body" => o.body = number() as usize,
            _ => usage(&format!("{name} is not known")),
        }
    }
    o
}

fn usage(what: &str) -> ! {
    eprintln!("{what}; see the head of tools/bench/h3-peers/common/src/lib.rs");
    std::process::exit(2);
}

/// Fields of every request behind its pseudo-header fields: about what a browser sends.
pub const REQUEST: [(&str, &str); 7] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9"),
    ("cookie", "session=4f2c8d1e9a7b6c5d; theme=dark; consent=1"),
    ("referer", "https://localhost/start"),
    ("cache-control", "no-cache"),
];

/// Fields of every response behind its status, but for `content-length`.
pub const RESPONSE: [(&str, &str); 5] = [
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "public, max-age=3600"),
    ("server", "bench"),
    ("etag", "\"5e8c2a-64f1\""),
    ("vary", "accept-encoding"),
];

/// The path of the n-th request: a thousand different ones.
pub fn path(n: u64) -> String {
    format!("/items/{}", n % 1000)
}

/// How many requests come first, to warm up.
pub fn warm_up(o: &Opts) -> u64 {
    (o.count / 10).max(o.concurrency)
}

/// Prints the report: times of all requests, and the bytes of UDP payload that the client sent and received for them.
pub fn report(stack: &str, o: &Opts, began: Instant, times: &mut [Duration], sent: u64, received: u64) {
    let seconds = began.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |q: f64| times[((times.len() as f64 * q) as usize).min(times.len() - 1)].as_secs_f64() * 1e6;
    let n = times.len() as f64;
    println!(
        "{{\"stack\":\"{stack}\",\"count\":{},\"concurrency\":{},\"requests_per_s\":{:.0},\"p50_us\":{:.1},\"p99_us\":{:.1},\
         \"sent_per_request\":{:.1},\"received_per_request\":{:.1}}}",
        times.len(),
        o.concurrency,
        n / seconds,
        at(0.5),
        at(0.99),
        sent as f64 / n,
        received as f64 / n,
    );
}
