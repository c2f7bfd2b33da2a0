//! What a relay of small messages costs: datagrams and system calls of a server that passes messages of 160 bytes from one
//! client on to another, over a hundred streams, a stream for each message, and DATAGRAM frames.
//! `cargo run --release -p courser --features tokio --example relay -- [MESSAGES]`.
//!
//! The relay has the Tokio face or the blocking one; sender and receiver are tasks. Messages come as fast as they can, or
//! twenty each millisecond.
#![allow(dead_code, missing_docs, reason = "the test calls `relay`, the program `main`")]

use std::error::Error;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use courser::certs::Throwaway;
use courser::tls::{ClientConfig, Credentials, Roots, ServerConfig};
use courser::worker::WorkerStats;
use courser::{ClientOptions, ServerOptions, Settings, WorkerFigures, aio};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes of a message.
pub const MESSAGE: usize = 160;
/// Streams that are open at once.
const STREAMS: usize = 100;
/// Messages of each millisecond, when they come evenly.
const EACH_MS: usize = 20;
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One after the other on a hundred streams that stay.
    Streams,
    /// A stream for each, a hundred at once.
    StreamEach,
    /// DATAGRAM frames.
    Datagrams,
}

/// What the relay's server is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Tokio,
    Blocking,
}

/// What a run took at the relay.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Messages that arrived.
    pub arrived: usize,
    /// Datagrams that the relay sent to the receiver.
    pub datagrams: u64,
    /// Calls by which it sent, to sender and receiver.
    pub sends: u64,
    /// Calls by which it received something.
    pub receives: u64,
}

fn main() -> Result<()> {
    let messages = std::env::args().nth(1).map_or(Ok(50_000), |text| text.parse())?;
    println!(
        "{messages} messages of {MESSAGE} bytes | datagrams | calls that send | that receive | messages a call that sends"
    );
    for face in [Face::Tokio, Face::Blocking] {
        for even in [false, true] {
            for way in [Way::Streams, Way::StreamEach, Way::Datagrams] {
                let cost = relay(face, way, messages, even)?;
                let pace = if even { "20 each ms" } else { "at once" };
                let lost = messages - cost.arrived;
                let per = cost.arrived as f64 / cost.sends as f64;
                println!(
                    "{face:?}, {way:?}, {pace} | {} | {} | {} | {per:.1}{}",
                    cost.datagrams,
                    cost.sends,
                    cost.receives,
                    if lost > 0 { format!(" ({lost} found no room)") } else { String::new() }
                );
            }
        }
    }
    Ok(())
}

/// Relays so many messages; what that took.
pub fn relay(face: Face, way: Way, messages: usize, even: bool) -> Result<Cost> {
    let identity = Throwaway::local()?;
    let credentials = Credentials::from_pem(identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes())?;
    let mut settings = Settings::default();
    settings.max_streams_uni = STREAMS as u64;
    let tls = ServerConfig::builder().certificate(credentials).alpn(["relay"]).build()?;
    let options = ServerOptions::new(tls).settings(settings.clone());
    let tls =
        ClientConfig::builder().roots(Roots::empty().add_der(identity.certificate_der())?).alpn(["relay"]).build()?;
    let client = ClientOptions::new(tls).settings(settings);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let local = "127.0.0.1:0".parse()?;
    let run = |addr: SocketAddr, figures: &dyn Fn() -> Vec<WorkerFigures>| {
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE, drive(addr, client, way, (messages, even), figures)).await?
        })
    };
    match face {
        Face::Tokio => {
            let entered = runtime.enter();
            let server = aio::Endpoint::server(local, options)?;
            drop(entered);
            let serving = server.clone();
            runtime.spawn(async move { pass_on_in_tasks(&serving, way).await });
            run(server.local_addr(), &|| server.workers())
        }
        Face::Blocking => {
            let server = courser::Endpoint::server(local, options)?;
            let serving = server.clone();
            thread::spawn(move || pass_on_in_threads(&serving, way));
            run(server.local_addr(), &|| server.workers())
        }
    }
}

/// The two clients, and what the relay counts while they are at it.
async fn drive(
    addr: SocketAddr,
    client: ClientOptions,
    way: Way,
    (messages, even): (usize, bool),
    figures: &dyn Fn() -> Vec<WorkerFigures>,
) -> Result<Cost> {
    // Two endpoints, as two machines are. The receiver comes first; by this the relay knows it.
    let (there, here) = (aio::Endpoint::client(client.clone())?, aio::Endpoint::client(client)?);
    let receiver = there.connect_to(addr, "localhost")?.await?;
    let sender = here.connect_to(addr, "localhost")?.await?;
    let count = || {
        let mut sum = WorkerStats::default();
        figures().iter().for_each(|f| sum += f.worker);
        sum
    };
    let (before, heard) = (count(), receiver.stats().await.received.datagrams);
    let receiving = tokio::spawn({
        let receiver = receiver.clone();
        async move { receive(&receiver, way, messages).await }
    });
    send(&sender, way, messages, even).await?;
    let arrived = receiving.await??;
    // Figures are those of the last turn.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (after, datagrams) = (count(), receiver.stats().await.received.datagrams - heard);
    sender.close(0, b"");
    receiver.close(0, b"");
    Ok(Cost { arrived, datagrams, sends: after.sent - before.sent, receives: after.batches - before.batches })
}

async fn send(to: &aio::Connection, way: Way, messages: usize, even: bool) -> Result<()> {
    let message = bytes::Bytes::from_static(&[7; MESSAGE]);
    let mut streams = Vec::new();
    for _ in 0..if way == Way::Streams { STREAMS } else { 0 } {
        streams.push(to.open_uni().await?);
    }
    for n in 0..messages {
        if even && n % EACH_MS == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match way {
            Way::Streams => streams[n % STREAMS].write_chunk(message.clone()).await?,
            Way::StreamEach => {
                let mut stream = to.open_uni().await?;
                stream.write_chunk(message.clone()).await?;
                stream.finish()?;
            }
            Way::Datagrams => to.send_datagram(message.clone()).await?,
        }
    }
    streams.iter_mut().try_for_each(|stream| stream.finish())?;
    if way != Way::Datagrams {
        return Ok(());
    }
    // What says that there are no more, and does not get lost.
    to.open_uni().await?.finish()?;
    Ok(())
}

async fn receive(from: &aio::Connection, way: Way, messages: usize) -> Result<usize> {
    let mut arrived = 0;
    if way == Way::Datagrams {
        loop {
            // DATAGRAM frames may be lost; the stream that the sender finishes comes behind them.
            tokio::select! {
                biased;
                data = from.recv_datagram() => arrived += data?.len() / MESSAGE,
                _ = from.accept_uni() => break,
            }
        }
        return Ok(arrived);
    }
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut bytes = 0;
    while bytes < messages * MESSAGE {
        tokio::select! {
            stream = from.accept_uni() => {
                let (mut stream, tell) = (stream?, tell.clone());
                tokio::spawn(async move {
                    while let Ok(Some(chunk)) = stream.read_chunk().await {
                        let _ = tell.send(chunk.len());
                    }
                });
            }
            Some(n) = told.recv() => bytes += n,
        }
    }
    arrived += bytes / MESSAGE;
    Ok(arrived)
}

/// The relay in tasks: one for each stream.
async fn pass_on_in_tasks(server: &aio::Endpoint, way: Way) -> Result<()> {
    let to = server.accept_connection().await?;
    let from = server.accept_connection().await?;
    if way == Way::Datagrams {
        let (ours, theirs) = (from.clone(), to.clone());
        let datagrams = async move {
            while let Ok(data) = ours.recv_datagram().await {
                if theirs.send_datagram(data).await.is_err() {
                    return;
                }
            }
        };
        let end = async {
            let _ = from.accept_uni().await;
            // What came before it has been passed on when nothing else is to be done.
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        tokio::select! { () = datagrams => {}, () = end => {} }
        to.open_uni().await?.finish()?;
        to.closed().await;
        return Ok(());
    }
    while let Ok(mut receive) = from.accept_uni().await {
        let to = to.clone();
        tokio::spawn(async move {
            let mut send = to.open_uni().await?;
            while let Some(chunk) = receive.read_chunk().await? {
                send.write_chunk(chunk).await?;
            }
            send.finish()?;
            Result::Ok(())
        });
    }
    Ok(())
}

/// The same in threads: one for each stream that is open at once.
fn pass_on_in_threads(server: &courser::Endpoint, way: Way) -> Result<()> {
    let to = server.accept_connection()?;
    let from = server.accept_connection()?;
    if way == Way::Datagrams {
        let (ours, theirs) = (from.clone(), to.clone());
        thread::spawn(move || {
            while let Ok(data) = ours.recv_datagram() {
                if theirs.send_datagram(data).is_err() {
                    return;
                }
            }
        });
        from.accept_uni()?;
        thread::sleep(Duration::from_millis(50));
        to.open_uni()?.finish()?;
        let _ = to.closed();
        return Ok(());
    }
    let lanes: Vec<_> = (0..STREAMS)
        .map(|_| {
            let (from, to) = (from.clone(), to.clone());
            thread::Builder::new().stack_size(128 << 10).spawn(move || {
                while let Ok(mut receive) = from.accept_uni() {
                    let mut send = to.open_uni()?;
                    while let Some(chunk) = receive.read_chunk()? {
                        send.write_chunk(chunk)?;
                    }
                    send.finish()?;
                }
                Result::Ok(())
            })
        })
        .collect::<std::io::Result<_>>()?;
    lanes.into_iter().for_each(|lane| drop(lane.join()));
    Ok(())
}
