//! HTTP/1.1 and HTTP/2 over TLS over TCP.
//!
//! Each connection is a task. It ends by itself, or when it is idle for too long, or when the server ends: first it is told
//! to end after the requests under way and those that are on their way to it, later it is closed.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep, interval_at, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::Phase;
use super::stalled::Stalled;
use crate::app::{App, Peer, Service};
use crate::config::Limits;
use crate::metrics;

/// How long to wait when the system has no descriptor for a connection.
const BREATH: Duration = Duration::from_millis(100);
/// Time for requests that are on their way when the end begins. Until then only an answer over HTTP/1.1 says that it is the
/// last: a connection that was closed under a request could not say whether that counted.
const ON_THE_WAY: Duration = Duration::from_millis(500);
/// How often HTTP/2 clients are asked whether they are there.
const PING: Duration = Duration::from_secs(30);
/// Fields of one request over HTTP/1.1.
const FIELDS_MAX: usize = 100;
/// Bytes of an answer over HTTP/2 that wait for a client to read them, beside the piece that is being sent.
const SEND_BUFFER: usize = 64 << 10;

/// What all connections of a server have in common.
#[derive(Clone)]
pub struct Shared {
    /// What answers.
    pub app: Arc<App>,
    /// TLS.
    pub tls: TlsAcceptor,
    /// What nobody gets more of.
    pub limits: Limits,
    /// Places for connections.
    pub places: Arc<Semaphore>,
    /// How far the server is.
    pub phase: watch::Receiver<Phase>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Accepts connections until the server is to end; then no longer listens.
pub async fn accept(listener: Arc<TcpListener>, shared: Shared) {
    let mut phase = shared.phase.clone();
    let port = listener.local_addr().map_or(0, |address| address.port());
    loop {
        let accepted = async {
            // First the place, then the connection: who finds none waits in the system's queue.
            let place = Arc::clone(&shared.places).acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let (place, accepted) = tokio::select! {
            Some(accepted) = accepted => accepted,
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => return,
        };
        match accepted {
            Ok((tcp, remote)) => {
                // At a socket of both families clients of IPv4 come in disguise.
                let remote = (remote.ip().to_canonical(), remote.port()).into();
                let peer = Peer { remote, port, is_secure: true };
                // Counted at once: a server that ends must know of it before its task has begun.
                metrics::add(&shared.app.metrics.accepted);
                shared.app.metrics.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(counted(tcp, peer, shared.clone(), place));
            }
            Err(e) => {
                // A client that went is no trouble; a lack of descriptors passes.
                tracing::debug!("a connection cannot be accepted: {e}");
                if !matches!(e.kind(), std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset) {
                    sleep(BREATH).await;
                }
            }
        }
    }
}

async fn counted(tcp: TcpStream, peer: Peer, shared: Shared, place: OwnedSemaphorePermit) {
    let app = Arc::clone(&shared.app);
    serve(tcp, peer, shared).await;
    app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    drop(place);
}

async fn serve(tcp: TcpStream, peer: Peer, shared: Shared) {
    let Shared { app, tls, limits, mut phase, .. } = shared;
    // Small answers go at once.
    let _ = tcp.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(limits.handshake, tls.accept(tcp)).await else {
        metrics::add(&app.metrics.handshakes_failed);
        return;
    };
    let service = Service::new(app, peer);
    let activity = service.activity();
    // Runs from the beginning of the end on.
    let mut parting = pin!(None::<Sleep>);
    let builder = builder(&limits);
    let io = TokioIo::new(Stalled::new(stream, limits.stalled));
    let connection = builder.serve_connection_with_upgrades(io, service);
    tokio::pin!(connection);
    let mut ticks = interval_at(Instant::now() + limits.idle, limits.idle.max(BREATH));
    let (mut seen, mut ending) = (None, false);
    loop {
        tokio::select! {
            done = connection.as_mut() => {
                if let Err(e) = done {
                    tracing::debug!(remote = %peer.remote, "a connection ended: {e}");
                }
                break;
            }
            phase = next(&mut phase, ending) => match phase {
                Phase::Serving => {}
                Phase::Draining => {
                    ending = true;
                    activity.set_last();
                    parting.set(Some(sleep(ON_THE_WAY)));
                }
                Phase::Over => break,
            },
            () = over(parting.as_mut()) => {
                parting.set(None);
                connection.as_mut().graceful_shutdown();
            }
            _ = ticks.tick() => {
                let now = activity.idle_since();
                if now.is_some() && now == seen {
                    if ending {
                        return;
                    }
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                seen = now;
            }
        }
    }
    // What was upgraded is a tunnel now, to which only its ends and the server's belong.
    let mut tunnels = activity.take_tunnels();
    let joined = async { while tunnels.join_next().await.is_some() {} };
    tokio::select! {
        () = joined => {}
        _ = phase.wait_for(|phase| *phase == Phase::Over) => {}
    }
}

/// Ready when the timer is; never without one.
async fn over(timer: Pin<&mut Option<Sleep>>) {
    match timer.as_pin_mut() {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

/// The next phase of the server that a connection has not heard of.
async fn next(phase: &mut watch::Receiver<Phase>, ending: bool) -> Phase {
    let news = |phase: &Phase| *phase == Phase::Over || (*phase == Phase::Draining && !ending);
    // Without a server there is nobody to serve for.
    phase.wait_for(news).await.map_or(Phase::Over, |phase| *phase)
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let fields = usize::try_from(limits.fields).unwrap_or(usize::MAX);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_headers(FIELDS_MAX)
        // The least that is possible; requests of this size are read as a whole.
        .max_buf_size(fields.max(8192));
    builder
        .http2()
        .enable_connect_protocol()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(limits.fields).unwrap_or(u32::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}
