//! Programs in C, compiled with the system's compiler and run: with a service beside them, or, with the feature `engine`,
//! without any.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[cfg(not(feature = "engine"))]
use courser_stack::{
    host::{Config, Host},
    service::{Options, Service},
};

#[cfg(not(feature = "engine"))]
#[path = "../../courser-session/examples/line.rs"]
mod line;

/// A folder with programs and certificates, and a service for them.
struct Bench {
    folder: tempfile::TempDir,
    #[cfg(not(feature = "engine"))]
    _service: Service,
}

/// Where the compiler has put the library.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.parent().expect("a test is in a folder").to_owned()
}

/// The archive of that name; the build system may have put a hash behind it. The newest is this build's.
fn archive() -> PathBuf {
    let found = std::fs::read_dir(libraries()).expect("the folder is there").flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("libcourserstack") && name.ends_with(".a")
    });
    let newest = found.max_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok());
    newest.expect("the library was built").path()
}

impl Bench {
    /// `None` where there is no C compiler.
    fn new() -> Option<Self> {
        if Command::new("cc").arg("--version").output().is_err() {
            eprintln!("skipped: there is no C compiler here (cc)");
            return None;
        }
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate is made");
        std::fs::write(folder.path().join("chain.pem"), identity.cert.pem()).expect("it is written");
        std::fs::write(folder.path().join("key.pem"), identity.signing_key.serialize_pem()).expect("it is written");
        #[cfg(not(feature = "engine"))]
        let _service = Service::start(Host::new(Config::default()), Options::new(folder.path().join("socket")))
            .expect("a service starts");
        Some(Self {
            folder,
            #[cfg(not(feature = "engine"))]
            _service,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn compile(&self, name: &str) -> PathBuf {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = self.path(name);
        let mut cc = Command::new("cc");
        cc.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-D_POSIX_C_SOURCE=200809L", "-I"]);
        cc.arg(here.join("include")).arg(here.join(format!("c/{name}.c"))).arg("-o").arg(&program);
        cc.arg(archive()).args(["-lpthread", "-ldl", "-lm"]);
        let compiled = cc.output().expect("the compiler runs");
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success() && said.is_empty(), "{name}.c: {said}");
        program
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).env("COURSER_SOCKET", self.path("socket"));
        command.env_remove("COURSER_CONFIG");
        command
    }

    /// A server and a client of that protocol talk, each in a process of its own.
    fn talk(&self, (server, client): (&Path, &Path), protocol: &str) {
        let at = format!("{protocol}://127.0.0.1:0");
        let identity: &[&str] = if protocol == "quic" { &["chain.pem", "key.pem"] } else { &[] };
        self.talk_to(self.run(server, &[&[at.as_str()], identity].concat()), client, protocol);
    }

    /// A client talks to the server that the command starts.
    fn talk_to(&self, mut server: Command, client: &Path, protocol: &str) {
        let identity: &[&str] = if protocol == "quic" { &["chain.pem", "key.pem"] } else { &[] };
        let mut serving = server.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut address = String::new();
        let mut said = BufReader::new(serving.stdout.take().expect("its output is read"));
        // Of a program that is a test, other lines come first.
        while !address.trim().contains("127.0.0.1:") {
            address.clear();
            assert!(said.read_line(&mut address).expect("it can be read") > 0, "it says where it listens");
        }
        let port = address.trim().rsplit(':').next().expect("an address has a port").to_owned();
        let host = if protocol == "quic" { "localhost" } else { "127.0.0.1" };
        let (to, line) = (format!("{protocol}://{host}:{port}"), "a line from C \u{2014} and back");
        let roots = identity.get(..1).unwrap_or_default();
        let answer = self.run(client, &[&[to.as_str(), line], roots].concat()).output().expect("the client runs");
        assert!(answer.status.success(), "{protocol}: {}", String::from_utf8_lossy(&answer.stderr));
        assert_eq!(String::from_utf8_lossy(&answer.stdout), line);
        assert!(serving.wait().expect("the server ends").success());
    }
}

#[test]
fn two_programs_in_c_talk_over_each_protocol() {
    let Some(bench) = Bench::new() else { return };
    let (server, client) = (bench.compile("server"), bench.compile("client"));
    for protocol in ["quic", "tcp", "udp"] {
        bench.talk((&server, &client), protocol);
    }
}

#[test]
fn every_call_answers_what_the_header_says() {
    let Some(bench) = Bench::new() else { return };
    let calls = bench.run(&bench.compile("calls"), &[]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&calls.stdout);
    assert!(calls.status.success(), "{said}{}", String::from_utf8_lossy(&calls.stderr));
    assert_eq!(said, "all calls answered\n");
}

#[test]
fn mistakes_are_answered_with_errors() {
    let Some(bench) = Bench::new() else { return };
    let hostile = bench.run(&bench.compile("hostile"), &[]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&hostile.stdout);
    assert!(hostile.status.success(), "{said}{}", String::from_utf8_lossy(&hostile.stderr));
    assert_eq!(said, "all mistakes answered\n");
}

#[test]
fn one_thread_in_c_echoes_to_many_clients_over_each_protocol() {
    const CLIENTS: usize = 6;
    let Some(bench) = Bench::new() else { return };
    let (echo, client) = (bench.compile("echo"), bench.compile("client"));
    for protocol in ["quic", "tcp", "udp"] {
        let at = format!("{protocol}://127.0.0.1:0");
        let identity: &[&str] = if protocol == "quic" { &["chain.pem", "key.pem"] } else { &[] };
        let mut server = bench.run(&echo, &[&[at.as_str(), &CLIENTS.to_string()], identity].concat());
        let mut serving = server.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut said = BufReader::new(serving.stdout.take().expect("its output is read"));
        let mut address = String::new();
        said.read_line(&mut address).expect("it can be read");
        let port = address.trim().rsplit(':').next().expect("an address has a port").to_owned();
        let host = if protocol == "quic" { "localhost" } else { "127.0.0.1" };
        let to = format!("{protocol}://{host}:{port}");
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let line = format!("line {number}");
                let mut run = bench.run(&client, &[&[&to, line.as_str()], &identity[..identity.len().min(1)]].concat());
                (line, run.stdout(Stdio::piped()).spawn().expect("a client starts"))
            })
            .collect();
        for (line, client) in clients {
            let answer = client.wait_with_output().expect("the client ends");
            assert!(answer.status.success(), "{protocol}: {line}");
            assert_eq!(String::from_utf8_lossy(&answer.stdout), line);
        }
        assert!(serving.wait().expect("the server ends").success());
    }
}

#[cfg(not(feature = "engine"))]
#[test]
fn the_library_that_attaches_has_no_engine_inside() {
    let archive = std::fs::read(archive()).expect("the library is read");
    for foreign in [b"rustls".as_slice(), b"aws_lc", b"courser_core"] {
        let inside = archive.windows(foreign.len()).any(|window| window == foreign);
        assert!(!inside, "{} is inside", String::from_utf8_lossy(foreign));
    }
}

/// The server in Rust, as a process of its own: does nothing unless it is asked to.
#[cfg(not(feature = "engine"))]
#[test]
fn role_rust_server() {
    let Ok(uri) = std::env::var("COURSER_TEST_URI") else { return };
    let files: &[&str] = if uri.starts_with("quic") { &["chain.pem", "key.pem"] } else { &[] };
    println!();
    line::serve(&uri, files).expect("it serves");
}

#[cfg(not(feature = "engine"))]
#[test]
fn a_program_in_c_talks_to_one_in_rust_through_one_service() {
    let Some(bench) = Bench::new() else { return };
    let client = bench.compile("client");
    let own = std::env::current_exe().expect("a test has a path");
    for protocol in ["quic", "tcp", "udp"] {
        let mut server = bench.run(&own, &["role_rust_server", "--exact", "--nocapture"]);
        server.env("COURSER_TEST_URI", format!("{protocol}://127.0.0.1:0"));
        bench.talk_to(server, &client, protocol);
    }
}
