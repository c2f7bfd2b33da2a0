//! What a port of a real worker costs: small round trips with the worker on the caller's thread and on one of its own.
//!
//! `cargo run --release -p courser --example port_round_trips -- --help`
//!
//! | Trip | What goes there and back |
//! |---|---|
//! | `figures` | a question for figures of a connection: the port and the worker's turn, no datagram |
//! | `request` | a new stream with 64 bytes and its end, echoed by a server over loopback |
//!
//! A batch is submitted together; four batches are on their way (loaded), or one. The kinds take turns within a run, the
//! figures are medians over the runs. The server has a thread of its own, which drives its worker.
#![allow(dead_code, missing_docs, reason = "a program; the echo server's example has a client too")]

#[path = "echo_ports.rs"]
mod echo_ports;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use courser::certs::Throwaway;
use courser::session::{
    Bytes, Completion, Ended, Endpoint, Handle, InlineEndpoint, Kind, Options, Port, PortSetup, Remote, Submission,
    ThreadPort, WriteCredit, look_time,
};
use courser::tls::{ClientConfig, Credentials, Roots, ServerConfig};
use courser::{ClientOptions, ServerOptions};
use echo_ports::{Echo, Result};

const HELP: &str = "\
  --runs N       runs per figure, of which the median is shown (default 9)
  --trips N      round trips per run (default 2000)
  --look US      how long each side looks around before it sleeps, in microseconds (default: 50, or 0 on one processor)
";

const REQUEST: [u8; 64] = [0x2a; 64];
/// Batches on their way under load.
const DEPTH: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let (mut runs, mut trips, mut look) = (9, 2000, look_time());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().and_then(|v| v.parse::<usize>().ok()).ok_or(HELP);
        match word.as_str() {
            "--runs" => runs = value()?.max(1),
            "--trips" => trips = value()?.max(100),
            "--look" => look = Duration::from_micros(value()? as u64),
            _ => {
                print!("{HELP}");
                return Ok(());
            }
        }
    }
    println!("| trip | way | batch | inline /s | thread /s | thread of inline |\n|---|---|---|---|---|---|");
    for figures in [true, false] {
        for depth in [DEPTH, 1] {
            for batch in [1, 8, 32] {
                let plan = Plan { figures, batch, depth, trips };
                let mut rates: [Vec<f64>; 2] = Default::default();
                for _ in 0..runs {
                    for (kind, rates) in rates.iter_mut().enumerate() {
                        rates.push(measure(kind == 1, look, &plan)?);
                    }
                }
                let ratios = rates[0].iter().zip(&rates[1]).map(|(inline, thread)| thread / inline).collect();
                let [inline, thread] = rates.map(median);
                let (trip, way) =
                    (if figures { "figures" } else { "request" }, if depth == 1 { "one batch" } else { "loaded" });
                let share = 100.0 * median(ratios);
                println!("| {trip} | {way} | {batch} | {inline:.0} | {thread:.0} | {share:.0} % |");
            }
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

struct Plan {
    figures: bool,
    batch: usize,
    depth: usize,
    trips: usize,
}

/// The client's worker, wherever it runs.
enum End {
    Thread(Endpoint, Box<ThreadPort>, Duration),
    Inline(Box<InlineEndpoint>),
}

impl End {
    fn visit<R>(&mut self, f: impl FnOnce(&mut dyn Port) -> R) -> R {
        match self {
            Self::Thread(_, port, _) => f(&mut **port),
            Self::Inline(end) => f(&mut end.port()),
        }
    }

    /// Lets the worker go on; whether there is something to poll is for the next visit.
    fn idle(&mut self) -> Result<()> {
        match self {
            Self::Thread(_, port, look) => drop(port.look_then_wait(*look, Some(PATIENCE))),
            Self::Inline(end) => {
                if !end.turn()? {
                    end.wait(Some(PATIENCE))?;
                }
            }
        }
        Ok(())
    }
}

/// Round trips per second.
fn measure(threaded: bool, look: Duration, plan: &Plan) -> Result<f64> {
    let identity = Throwaway::local()?;
    let credentials = Credentials::from_pem(identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes())?;
    let tls = ServerConfig::builder().certificate(credentials).alpn(["echo"]).build()?;
    let mut options = ServerOptions::new(tls);
    options.settings.max_streams_bidi = 512;
    let server = InlineEndpoint::new(Options::server("127.0.0.1:0".parse()?, options), PortSetup::default())?;
    let (to, stop) = (server.local_addr(), Arc::new(AtomicBool::new(false)));
    let asked = Arc::clone(&stop);
    let serving = thread::spawn(move || serve(server, &asked));
    let roots = Roots::empty().add_der(identity.certificate_der())?;
    let tls = ClientConfig::builder().roots(roots).alpn(["echo"]).build()?;
    let options = Options::client(ClientOptions::new(tls)).look(look);
    let mut end = if threaded {
        let endpoint = Endpoint::start(options)?;
        let port = endpoint.attach(PortSetup::default());
        End::Thread(endpoint, Box::new(port), look)
    } else {
        End::Inline(Box::new(InlineEndpoint::new(options, PortSetup::default())?))
    };
    let to = Remote { address: to, server_name: "localhost".into(), profile: 0 };
    end.visit(|port| port.submit(Submission::Connect { token: 0, to: Box::new(to) }))?;
    let connection = loop {
        let found = end.visit(|port| {
            loop {
                match port.poll() {
                    Some(Completion::Established { connection }) => return Ok(Some(connection)),
                    Some(message) => Ended::of(&message).map_or(Ok(()), Err)?,
                    None => return Ok(None),
                }
            }
        });
        match found.map_err(|e: Ended| e)? {
            Some(connection) => break connection,
            None => end.idle()?,
        }
    };
    // Once to warm up.
    trips(&mut end, connection, plan, plan.trips / 10)?;
    let took = trips(&mut end, connection, plan, plan.trips)?;
    stop.store(true, Ordering::Release);
    drop(end);
    serving.join().map_err(|_| "the server panicked")??;
    Ok(plan.trips as f64 / took.as_secs_f64())
}

/// Makes so many round trips.
fn trips(end: &mut End, connection: Handle, plan: &Plan, count: usize) -> Result<Duration> {
    let start = Instant::now();
    let (mut asked, mut answered) = (0, 0);
    let mut heard = Vec::new();
    while answered < count {
        end.visit(|port| -> Result<()> {
            port.poll_into(&mut heard, usize::MAX);
            for message in heard.drain(..) {
                match message {
                    Completion::Opened { handle, .. } => {
                        port.write(handle, &mut WriteCredit::new(), &mut Bytes::from_static(&REQUEST), true);
                    }
                    Completion::Stats { .. } | Completion::Data { fin: true, .. } => answered += 1,
                    message => {
                        let ended = Ended::of(&message).filter(|ended| !ended.is_good());
                        ended.map_or(Ok(()), Err)?;
                    }
                }
            }
            while asked < count && asked - answered + plan.batch <= plan.batch * plan.depth {
                let ask = |_| match plan.figures {
                    true => Submission::Stats { handle: connection, token: 0 },
                    false => Submission::OpenBi { connection, token: 0 },
                };
                let batch = plan.batch.min(count - asked);
                asked += port.submit_batch(&mut (0..batch).map(ask));
            }
            Ok(())
        })?;
        if answered < count {
            end.idle()?;
        }
    }
    Ok(start.elapsed())
}

/// Echoes until it is asked to stop and its client has gone.
fn serve(mut end: InlineEndpoint, stop: &AtomicBool) -> Result<()> {
    let at = Remote { address: end.local_addr(), server_name: String::new(), profile: 0 };
    end.port().submit(Submission::Listen { token: 0, at: Box::new(at) })?;
    let mut echo = Echo::default();
    loop {
        let mut port = end.port();
        while let Some(message) = port.poll() {
            let over = message.handle().is_some_and(|handle| handle.kind() == Kind::Connection);
            if over && Ended::of(&message).is_some() && stop.load(Ordering::Acquire) {
                return Ok(());
            }
            echo.on(&mut port, message);
        }
        if !end.turn()? {
            end.wait(Some(PATIENCE))?;
        }
    }
}
