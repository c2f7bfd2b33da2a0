//! Telling a service manager how the server is (the protocol of `sd_notify`): a datagram to the socket that it names.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;

/// The service manager, when there is one that listens.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The addresses are bound; requests are answered.
    Ready,
    /// The configuration is being read again; [`Ready`](Self::Ready) follows, whatever became of it.
    Reloading,
    /// The server is about to end.
    Stopping,
    /// The process of that number is the server from now on.
    Succeeded(u32),
}

impl Manager {
    /// The one that the environment names.
    #[must_use]
    pub fn from_env() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        match Self::at(&name) {
            Ok(manager) => manager,
            Err(e) => {
                tracing::warn!("the service manager cannot be told: {e}");
                Self::default()
            }
        }
    }

    /// The one that listens there; a name that begins with `@` is not in the file system.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn at(name: &OsStr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        match name.as_bytes().strip_prefix(b"@") {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
            }
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            Some(_) => return Err(io::ErrorKind::Unsupported.into()),
            None => socket.connect(name)?,
        }
        Ok(Self { socket: Some(socket) })
    }

    /// Tells it.
    pub fn tell(&self, state: State) {
        let Some(socket) = &self.socket else { return };
        let text = match state {
            State::Ready => "READY=1".to_owned(),
            State::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_micros()),
            State::Stopping => "STOPPING=1".to_owned(),
            State::Succeeded(process) => format!("MAINPID={process}"),
        };
        if let Err(e) = socket.send(text.as_bytes()) {
            tracing::warn!("the service manager cannot be told: {e}");
        }
    }
}

/// By the clock that the manager compares with.
fn monotonic_micros() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_each_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.as_os_str()).unwrap();
        for (state, begin) in [
            (State::Ready, "READY=1"),
            (State::Reloading, "RELOADING=1\nMONOTONIC_USEC="),
            (State::Stopping, "STOPPING=1"),
            (State::Succeeded(7), "MAINPID=7"),
        ] {
            manager.tell(state);
            let mut buffer = [0; 100];
            let n = listener.recv(&mut buffer).unwrap();
            assert!(buffer[..n].starts_with(begin.as_bytes()), "{state:?}");
        }
        assert!(Manager::at(OsStr::new("/nowhere/at/all")).is_err());
        Manager::default().tell(State::Ready);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn names_outside_the_file_system_are_understood() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("courser-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        Manager::at(OsStr::new(&format!("@{name}"))).unwrap().tell(State::Ready);
        let mut buffer = [0; 100];
        assert_eq!(listener.recv(&mut buffer).unwrap(), 7);
    }
}
