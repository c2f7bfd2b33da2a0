//! Echo programs whose transport is in the service's process: they have a port and no QUIC.
//!
//! The programs, the table and the messages are those of the other session programs; only where the worker is differs, so that
//! the difference of their figures is what the border between the processes costs.

use std::path::{Path, PathBuf};

use courser_session::control::{Open, Profile, Protocol, Role, Trust};
use courser_session::stack::{Attachment, Control};

use super::desk::Desk;
use super::gate::Gate;
use super::{attend, listen, peer_of_server};
use crate::apps::body::Counter;
use crate::apps::echo::{ALPN, EchoServer};
use crate::args::common::{IdentityArgs, TrustArgs};
use crate::failure::{Failure, Outcome};
use crate::link::Peer;
use crate::link::serve::Stop;
use crate::transport::App;

/// Where the service is, and whom a client of it trusts.
#[derive(Debug)]
pub struct Away {
    socket: PathBuf,
    trust: Trust,
}

impl Away {
    /// What the flags say.
    ///
    /// # Errors
    /// A file of certificates that cannot be read.
    pub fn new(socket: &Path, args: &TrustArgs) -> Outcome<Self> {
        let trust = match &args.ca {
            _ if args.insecure => Trust::Anybody,
            Some(path) => Trust::Roots(std::fs::read(path).map_err(|e| Failure::reading(path, &e))?),
            None => Trust::System,
        };
        Ok(Self { socket: socket.to_owned(), trust })
    }

    /// A client's port; it lives as long as what comes with it.
    pub(super) fn client<A: App>(&self, peer: Peer) -> Outcome<(Box<dyn Control>, Desk<A>)> {
        let profile = Profile { trust: self.trust.clone(), ..profile() };
        let (control, gate, _) = open(&self.socket, Role::Dial(None), |_| Ok(profile))?;
        Ok((control, Desk::new(gate, peer)))
    }
}

fn profile() -> Profile {
    Profile { alpn: vec![ALPN.to_vec()], streams: Some(65_536), ..Profile::default() }
}

/// Attaches, and opens an endpoint.
fn open(
    socket: &Path,
    role: Role,
    profile: impl FnOnce(&mut dyn Control) -> Outcome<Profile>,
) -> Outcome<(Box<dyn Control>, Gate, std::net::SocketAddr)> {
    let failed = |why: String| Failure::Local { what: format!("the service at {}", socket.display()), why };
    let reached = Attachment::reach(socket, "courser echo");
    let attachment = reached.map_err(|e| Failure::Local { what: "attaching".into(), why: e.to_string() })?;
    let (mut control, bell) = (attachment.control, attachment.bell);
    let profile = profile(&mut *control)?;
    let opened = control.open(&Open { protocol: Protocol::Quic, role, profile }).map_err(|e| failed(e.text))?;
    let local = opened.local;
    let port = opened.ports.into_iter().next().ok_or_else(|| failed("it gave no port".into()))?;
    Ok((control, Gate::Away { port, bell }, local))
}

/// Serves echo clients through the service until the process is asked to end; `ready` is told the address.
///
/// # Errors
/// The service cannot be reached, or does not want the listener.
pub fn serve(
    socket: &Path,
    (at, identity): (std::net::SocketAddr, &IdentityArgs),
    ready: &dyn Fn(std::net::SocketAddr),
    warn: &dyn Fn(&Failure),
) -> Outcome {
    let stop = Stop::on_signals(Vec::new())?;
    let (chain, key) = pem(identity)?;
    let (_control, mut gate, local) = open(socket, Role::Listen(at), |control| {
        let added = control.add_certificate(&chain, &key);
        let id = added.map_err(|e| Failure::Local { what: "the service".into(), why: e.text })?;
        Ok(Profile { certificates: vec![id], ..profile() })
    })?;
    listen(&mut gate, local)?;
    ready(local);
    let mut desk = Desk::new(gate, peer_of_server());
    attend(&mut desk, &stop, || EchoServer::new(Counter::default()), &mut |failure| warn(&failure))
}

/// Certificate and key as text.
///
/// # Errors
/// They cannot be read, or made.
pub fn pem(args: &IdentityArgs) -> Outcome<(Vec<u8>, Vec<u8>)> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|e| Failure::reading(path, &e));
    if let (Some(cert), Some(key)) = (&args.cert, &args.key) {
        return Ok((read(cert)?, read(key)?));
    }
    let made = courser::certs::Throwaway::local()
        .map_err(|e| Failure::Local { what: "making a certificate".into(), why: e.to_string() })?;
    Ok((made.certificate_pem().into(), made.key_pem().into()))
}
