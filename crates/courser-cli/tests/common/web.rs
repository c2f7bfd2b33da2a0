//! Web servers as programs, and the places that they serve.
#![allow(dead_code, clippy::unwrap_used, reason = "a test may fail, and need not use everything")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{COURSER, command, identity, text};

/// Nothing here takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A server that was started, and what it says.
pub struct Web {
    pub child: Child,
    at: At,
    pub said: BufReader<std::process::ChildStderr>,
}

impl Web {
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[])
    }

    pub fn start_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = command(COURSER, args);
        command.envs(env.iter().copied()).stdout(Stdio::null());
        Self::spawn(command)
    }

    /// Waits until it listens.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, at: At { addr }, said }
    }

    /// Reads what it says until a line has this in it.
    #[track_caller]
    pub fn until(&mut self, piece: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "no {piece:?} in: {all}");
            all.push_str(&line);
            if line.contains(piece) {
                return all;
            }
        }
    }

    /// Waits for its end; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

/// Where a server is, for its clients.
#[derive(Clone)]
pub struct At {
    pub addr: String,
}

impl At {
    pub fn connect(&self, ca: &Path) -> Tls {
        self.try_connect(ca).unwrap()
    }

    pub fn try_connect(&self, ca: &Path) -> std::io::Result<Tls> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let tcp = TcpStream::connect(&self.addr)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        Ok(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp))
    }

    /// One request on a connection of its own.
    pub fn get(&self, ca: &Path, target: &str) -> std::io::Result<String> {
        let mut tls = self.try_connect(ca)?;
        write!(tls, "GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        // Servers that end do not always say that TLS ends.
        let read = tls.read_to_end(&mut answer);
        if answer.is_empty() { read.map(|_| String::new()) } else { Ok(String::from_utf8(answer).unwrap()) }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.addr.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// One request over HTTP/3 alone, by the download command; its body.
    pub fn get_h3(&self, ca: &str, target: &str) -> String {
        let uri = format!("https://localhost:{}{target}", self.port());
        let here = format!("localhost:{}:127.0.0.1", self.port());
        let got = super::courser(&["get", "--http3-only", "--cacert", ca, "--resolve", &here, "-o", "-", &uri]);
        assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
        String::from_utf8(got.stdout).unwrap()
    }
}

impl std::ops::Deref for Web {
    type Target = At;

    fn deref(&self) -> &At {
        &self.at
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with a page, and a certificate.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub cert: String,
    pub key: String,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = identity(dir.path(), (2020, 1, 1), (2050, 1, 1));
        fs::create_dir(dir.path().join("www")).unwrap();
        fs::write(dir.path().join("www/index.html"), "home").unwrap();
        let (cert, key) = (text(&cert).to_owned(), text(&key).to_owned());
        Self { dir, cert, key }
    }

    pub fn www(&self) -> String {
        text(&self.dir.path().join("www")).to_owned()
    }

    pub fn config(&self, more: &str) -> String {
        let path = self.dir.path().join("courser.toml");
        let head = "[server]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n";
        fs::write(&path, format!("{head}{more}")).unwrap();
        text(&path).to_owned()
    }

    pub fn serve(&self, more: &[&str]) -> Web {
        let www = self.www();
        let args = ["serve", &www, "--listen", "127.0.0.1:0", "--cert", &self.cert, "--key", &self.key];
        Web::start(&[&args[..], more].concat())
    }

    pub fn ca(&self) -> &Path {
        Path::new(&self.cert)
    }
}
