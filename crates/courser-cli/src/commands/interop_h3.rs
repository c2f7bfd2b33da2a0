//! The test case `http3` of the interop runner: the same files over HTTP/3.

use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use courser::aio::Endpoint;
use courser::h3::{ALPN, BoxError, Client, Full, RecvBody, SendRequest, Server, service_fn};
use courser::{ClientOptions, EndpointError, Request as Dialled, ServerOptions};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::interop::{PATIENCE, PORT};
use crate::apps::hq_server;
use crate::failure::{Failure, Outcome};
use crate::hq::{self, Url};
use crate::identity::Identity;
use crate::interop_env::Environment;
use crate::link::serve::Stop;
use crate::link::setup::{self, TlsChoice, Trust};
use crate::output::Ui;
use crate::tuning::Tuning;

/// Requests under way at once; each has an open file.
const AT_ONCE: usize = 100;
/// Piece in which files are read.
const PIECE: usize = 64 << 10;
/// How often the server looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// HTTP/3 in place of hq-interop.
pub(super) fn alpn() -> Vec<Vec<u8>> {
    vec![ALPN.as_bytes().to_vec()]
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Builder::new_current_thread().enable_all().build().map_err(|e| Failure::local("starting a Tokio runtime", &e))
}

/// Serves the files until the process is asked to end.
pub(super) fn serve(env: &Environment, tls: &TlsChoice, tuning: Tuning) -> Outcome {
    hq_server::check_root(&env.www)?;
    let identity = Identity::from_files(&env.certs.join("cert.pem"), &env.certs.join("priv.key"))?;
    let tls = setup::tls_server(&identity, tls, &tuning)?;
    let mut options = ServerOptions::new(tls).settings(tuning.settings);
    if let Some(qlog) = tuning.qlog {
        options = options.qlog(qlog);
    }
    let stop = Stop::on_signals(Vec::new())?;
    runtime()?.block_on(async {
        let at = |ip| Endpoint::server(SocketAddr::new(ip, PORT), options.clone());
        // Where there is no IPv6, IPv4 is all there can be.
        let endpoint =
            at(Ipv6Addr::UNSPECIFIED.into()).or_else(|_| at(Ipv4Addr::UNSPECIFIED.into())).map_err(|e| unbound(&e))?;
        let root: Arc<Path> = env.www.clone().into();
        let service = service_fn(move |request: Request<RecvBody>| {
            let root = Arc::clone(&root);
            async move { answer(&root, &request) }
        });
        let asked = async {
            while !stop.is_asked() {
                tokio::time::sleep(LOOK).await;
            }
        };
        Server::default().drain_timeout(Duration::from_secs(1)).serve(&endpoint, service, asked).await;
        Ok(())
    })
}

fn unbound(e: &EndpointError) -> Failure {
    Failure::Local { what: "making the server".into(), why: e.to_string() }
}

fn answer(root: &Path, request: &Request<RecvBody>) -> Result<Response<FileBody>, BoxError> {
    let status = |status| Ok(Response::builder().status(status).body(FileBody::empty())?);
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    match hq::file_inside(root, request.uri().path()).and_then(|path| FileBody::open(&path).ok()) {
        Some(body) => Ok(Response::new(body)),
        None => status(StatusCode::NOT_FOUND),
    }
}

/// A file, read while it is sent.
struct FileBody {
    file: Option<std::fs::File>,
    left: u64,
}

impl FileBody {
    const fn empty() -> Self {
        Self { file: None, left: 0 }
    }

    fn open(path: &PathBuf) -> std::io::Result<Self> {
        let file = std::fs::File::open(path)?;
        let left = file.metadata()?.len();
        Ok(Self { file: Some(file), left })
    }

    fn piece(&mut self) -> std::io::Result<Option<Bytes>> {
        let Some(file) = self.file.as_mut().filter(|_| self.left > 0) else { return Ok(None) };
        let size = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; size];
        file.read_exact(&mut piece)?;
        self.left -= size as u64;
        Ok(Some(piece.into()))
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(self.piece().map(|piece| piece.map(Frame::data)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Fetches the files over one connection. The value is how many could not be had.
pub(super) fn fetch(env: &Environment, tls: &TlsChoice, tuning: Tuning, ui: &Ui) -> Outcome<u64> {
    let tls = setup::tls_client(&Trust::Anybody, tls, &tuning)?;
    let mut options = ClientOptions::new(tls).settings(tuning.settings);
    if let Some(qlog) = tuning.qlog {
        options = options.qlog(qlog);
    }
    let Some(first) = env.requests.first() else { return Ok(0) };
    let target = first.server.clone();
    let failed = runtime()?.block_on(async {
        let endpoint = Endpoint::client(options).map_err(|e| unbound(&e))?;
        let dialling = async { endpoint.connect_with(Dialled::new(target.clone()))?.await };
        let connection = match tokio::time::timeout(PATIENCE, dialling).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(e)) => return Err(unreached(&target.to_string(), &e.to_string())),
            Err(_) => return Err(unreached(&target.to_string(), "nobody answered in time")),
        };
        let (requests, driving) = Client::default().stall_timeout(PATIENCE).start(connection);
        let driving = tokio::spawn(driving);
        let failed = all(&requests, env, ui).await;
        drop(requests);
        // What is left is to say good-bye.
        let _ = tokio::time::timeout(PATIENCE, driving).await;
        let _ = tokio::time::timeout(Duration::from_secs(3), endpoint.wait_idle()).await;
        Ok(failed)
    })?;
    Ok(failed)
}

fn unreached(whom: &str, why: &str) -> Failure {
    Failure::Local { what: format!("connecting to {whom}"), why: why.into() }
}

async fn all(requests: &SendRequest, env: &Environment, ui: &Ui) -> u64 {
    let (mut tasks, mut failed) = (JoinSet::new(), 0);
    let mut count = |done: Result<Result<(), String>, tokio::task::JoinError>| {
        if let Err(why) = done.map_err(|e| e.to_string()).and_then(|done| done) {
            ui.warn(format_args!("{why}"));
            failed += 1;
        }
    };
    for url in &env.requests {
        if tasks.len() >= AT_ONCE
            && let Some(done) = tasks.join_next().await
        {
            count(done);
        }
        let (requests, url, to) = (requests.clone(), url.clone(), env.downloads.join(&url.name));
        tasks.spawn(async move { one(requests, &url, &to).await.map_err(|e| format!("{}: {e}", url.path)) });
    }
    while let Some(done) = tasks.join_next().await {
        count(done);
    }
    failed
}

async fn one(mut requests: SendRequest, url: &Url, to: &Path) -> Result<(), BoxError> {
    let request = Request::get(format!("https://{}{}", url.server, url.path)).body(Full::default())?;
    let response = requests.send(request).await?;
    if !response.status().is_success() {
        return Err(format!("the server answered {}", response.status()).into());
    }
    let (mut file, mut body) = (std::fs::File::create(to)?, response.into_body());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            std::io::Write::write_all(&mut file, &data)?;
        }
    }
    Ok(())
}
