//! `courser get` as a program: exit codes, what it prints, what it leaves, and what it holds of large answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// A server of HTTP/1.1 on a thread for each connection, and a folder for what the program needs.
struct Scene {
    addr: SocketAddr,
    folder: TempDir,
    /// Header sections of requests.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    /// `answer` writes to a connection what it wants to, for each request line and header section.
    fn new(names: &[&str], answer: impl Fn(&str, &mut Tls) + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let (chain, key) = (vec![CertificateDer::from(leaf.der().to_vec())], key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::try_from(key).unwrap())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, seen) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (config, answer, list) = (Arc::new(config), Arc::new(answer), seen.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, answer, list) = (config.clone(), answer.clone(), list.clone());
                thread::spawn(move || {
                    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                    while let Some(request) = request(&mut tls) {
                        list.lock().unwrap().push(request.clone());
                        answer(&request, &mut tls);
                    }
                    tls.conn.send_close_notify();
                    let _ = tls.flush();
                });
            }
        });
        Self { addr, folder, seen }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.addr.port())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_courser"));
        command.arg("get").args(["--cacert", &self.path("ca.pem").to_string_lossy()]).args(args);
        command.current_dir(self.folder.path()).env("XDG_CACHE_HOME", self.path("cache"));
        command.env_remove("COURSER_LOG").stdin(Stdio::null());
        command
    }

    fn get(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
}

/// The header section of the next request; its body, where it has one, is read and put behind it.
fn request(tls: &mut Tls) -> Option<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        if tls.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    tls.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8_lossy(&body))
}

fn say(tls: &mut Tls, status: &str, fields: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}\r\n", body.len());
    // A client that goes away is none of the server's business.
    let _ = tls.write_all(head.as_bytes()).and_then(|()| tls.write_all(body)).and_then(|()| tls.flush());
}

fn err(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_file_is_fetched_and_told_in_words_and_as_json() {
    let scene = Scene::new(&["localhost"], |_, tls| say(tls, "200 OK", "etag: \"1\"\r\n", &[7; 100_000]));
    let out = scene.get(&[&scene.url("/d/f.bin")]);
    assert_eq!((out.status.code(), out.stdout.len()), (Some(0), 0), "{}", err(&out));
    let words = err(&out);
    for piece in ["97.7 KiB", "HTTP/1.1 200", "f.bin", "until: name", "handshake", "first byte", "total"] {
        assert!(words.contains(piece), "no {piece:?} in {words}");
    }
    assert!(!words.contains('\x1b') && !words.contains('['), "bars without a terminal: {words}");
    assert_eq!(std::fs::read(scene.path("f.bin")).unwrap(), [7; 100_000]);
    let out = scene.get(&["--json", "-q", &scene.url("/g"), &scene.url("/h")]);
    assert_eq!((out.status.code(), err(&out).as_str()), (Some(0), ""));
    let v: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (v["ok"].as_bool(), v["exit_code"].as_u64(), v["results"].as_array().unwrap().len()),
        (Some(true), Some(0), 2)
    );
    let one = &v["results"][0];
    assert_eq!(
        (one["size"].as_u64(), one["status"].as_u64(), one["protocol"].as_str()),
        (Some(100_000), Some(200), Some("HTTP/1.1"))
    );
    assert!(one["timing"]["first_byte"].as_f64() > Some(0.0) && one["timing"]["total"].is_number());
    assert!(one["headers"].as_array().unwrap().iter().any(|h| h[0] == "etag" && h[1] == "\"1\""));
}

#[test]
fn failures_have_the_codes_that_the_help_lists() {
    let scene = Scene::new(&["localhost"], |request, tls| match request.split(' ').nth(1).unwrap() {
        "/ok" => say(tls, "200 OK", "", b"fine"),
        "/404" => say(tls, "404 Not Found", "", b"no"),
        "/500" => say(tls, "500 Internal Server Error", "", b"oh"),
        _ => say(tls, "302 Found", "location: /again\r\n", b""),
    });
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stranger = Scene::new(&["elsewhere.test"], |_, tls| say(tls, "200 OK", "", b""));
    let elsewhere = format!("https://localhost:{}/", stranger.addr.port());
    for (args, code, words) in [
        (vec![scene.url("/404")], 8, "404 Not Found"),
        (vec![scene.url("/500")], 9, "500 Internal"),
        (vec![scene.url("/moved")], 8, "-L"),
        (vec!["-L".into(), scene.url("/moved")], 10, "--max-redirs"),
        (vec!["https://nobody.invalid/".into()], 3, "spelling"),
        (vec![format!("https://{closed}/")], 4, "no connection"),
        (vec![elsewhere], 5, "not believed"),
        (vec!["http://localhost/".into()], 3, "only https"),
        (vec!["-o".into(), "no/such/folder".into(), scene.url("/ok")], 7, "cannot be written"),
        (vec!["-T".into(), "nowhere".into(), scene.url("/ok")], 7, "cannot be read"),
        (vec![scene.url("/404"), scene.url("/500")], 1, "2 of 2 failed"),
        (vec![scene.url("/404"), scene.url("/ok")], 8, "404"),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let out = scene.get(&args);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", err(&out));
        assert!(err(&out).contains(words), "{args:?}: {}", err(&out));
    }
    assert_eq!(std::fs::read(scene.path("ok")).unwrap(), b"fine");
    for name in ["404", "500", "moved"] {
        assert!(!scene.path(name).exists(), "{name}");
    }
    std::fs::write(scene.path("ca.pem"), "nothing").unwrap();
    assert_eq!(scene.get(&[&scene.url("/ok")]).status.code(), Some(5));
    std::fs::remove_file(scene.path("ca.pem")).unwrap();
    assert_eq!(scene.get(&[&scene.url("/ok")]).status.code(), Some(7));
}

#[test]
fn heads_forms_and_answers_go_to_standard_output() {
    let scene = Scene::new(&["localhost"], |request, tls| {
        if request.starts_with("HEAD") {
            let _ = tls
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nx-mine: yes\r\n\r\n")
                .and_then(|()| tls.flush());
        } else {
            say(tls, "200 OK", "", request.as_bytes());
        }
    });
    let out = scene.get(&["-I", &scene.url("/f")]);
    assert_eq!(
        (out.status.code(), String::from_utf8(out.stdout).unwrap().as_str()),
        (Some(0), "HTTP/1.1 200\ncontent-length: 9\nx-mine: yes\n")
    );
    let out = scene.get(&["-d", "a=1", "-d", "b=2", "-H", "X-Mine: 7", "-H", "User-Agent:", &scene.url("/form")]);
    let said = String::from_utf8(out.stdout).unwrap().to_lowercase();
    assert!(said.starts_with("post /form http/1.1\r\n") && said.ends_with("\r\n\r\na=1&b=2"), "{said}");
    assert!(
        said.contains("x-mine: 7\r\n") && said.contains("x-www-form-urlencoded") && !said.contains("user-agent"),
        "{said}"
    );
    std::fs::write(scene.path("up.txt"), "what is sent").unwrap();
    let out = scene.get(&["-T", "up.txt", &scene.url("/in/")]);
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(said.starts_with("PUT /in/up.txt ") && said.ends_with("what is sent"), "{said}");
    let out = scene.get(&["-o", "-", &scene.url("/x")]);
    assert!(String::from_utf8(out.stdout).unwrap().starts_with("GET /x "));
}

#[test]
fn what_came_before_the_answer_is_shown_to_who_wants_to_see_heads() {
    let scene = Scene::new(&["localhost"], |_, tls| {
        let _ = tls.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n");
        say(tls, "200 OK", "", b"");
    });
    let out = scene.get(&["-I", &scene.url("/f")]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(said, "HTTP/1.1 103\nlink: </x>\n\nHTTP/1.1 200\ncontent-length: 0\n");
    let out = scene.get(&["-v", &scene.url("/f")]);
    assert!(err(&out).contains("HTTP/1.1 103\nlink: </x>\n\nHTTP/1.1 200\n"), "{}", err(&out));
    let out = scene.get(&["--json", &scene.url("/f")]);
    let v: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let before = &v["results"][0]["informational"][0];
    assert_eq!((before["status"].as_u64(), before["headers"][0][1].as_str()), (Some(103), Some("</x>")));
}

#[test]
fn name_servers_of_the_users_are_asked_for_addresses_and_records() {
    let scene = Scene::new(&["web.test"], |_, tls| say(tls, "200 OK", "", b"fine"));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = socket.local_addr().unwrap().to_string();
    let (tell, asked) = mpsc::channel();
    thread::spawn(move || {
        let mut query = [0; 2048];
        while let Ok((n, from)) = socket.recv_from(&mut query) {
            // The question ends behind the name's empty label, its type and its class.
            let end = 12 + query[12..n].iter().position(|b| *b == 0).unwrap() + 5;
            let kind = query[end - 3];
            let _ = tell.send(kind);
            let address = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1];
            let records: &[u8] = if kind == 1 { &address } else { &[] };
            let mut reply = query[..2].to_vec();
            reply.extend([0x81, 0x80, 0, 1, 0, u8::from(kind == 1), 0, 0, 0, 0]);
            reply.extend(&query[12..end]);
            reply.extend(records);
            let _ = socket.send_to(&reply, from);
        }
    });
    let url = format!("https://web.test:{}/f", scene.addr.port());
    let out = scene.get(&["--dns-servers", &server, &url]);
    assert_eq!(out.status.code(), Some(0), "{}", err(&out));
    // The server may be later than the client, who does not wait for it.
    while asked.recv_timeout(Duration::from_secs(60)).expect("records are asked for") != 65 {}
    let out = scene.get(&["--dns-servers", &server, "--no-https-records", &url]);
    assert_eq!(out.status.code(), Some(0), "{}", err(&out));
    assert!(asked.try_iter().all(|kind| kind != 65), "and are not");
}

const SIZE: usize = 4_000_000;

/// Sends the first half, tells, and waits for leave to send the rest; knows ranges.
fn halting(names: &[&str]) -> (Scene, Receiver<()>, Sender<()>) {
    let (tell, half) = mpsc::channel();
    let (leave, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let scene = Scene::new(names, move |request, tls| {
        let all: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
        let range =
            request.lines().find_map(|l| l.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        if let Some(from) = range {
            let fields = format!("etag: \"v\"\r\ncontent-range: bytes {from}-{}/{SIZE}\r\n", SIZE - 1);
            return say(tls, "206 Partial Content", &fields, &all[from..]);
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\netag: \"v\"\r\n\r\n");
        let _ =
            tls.write_all(head.as_bytes()).and_then(|()| tls.write_all(&all[..SIZE / 2])).and_then(|()| tls.flush());
        tell.send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
    });
    (scene, half, leave)
}

fn begun(scene: &Scene, half: &Receiver<()>) -> Child {
    let child = scene.command(&[&scene.url("/f")]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    half.recv().unwrap();
    // What is gathered in memory does not survive: some of it has to be in the file.
    let part = scene.path("f.part");
    while std::fs::metadata(&part).map_or(0, |m| m.len()) < 1_000_000 {
        thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn a_run_that_was_killed_is_continued_by_the_next() {
    let (scene, half, leave) = halting(&["localhost"]);
    let mut child = begun(&scene, &half);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(leave);
    assert!(!scene.path("f").exists() && scene.path("f.part.json").exists());
    let out = scene.get(&["--json", &scene.url("/f")]);
    let v: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", err(&out));
    assert!(v["results"][0]["resumed_from"].as_u64().unwrap() >= 1_000_000);
    let file = std::fs::read(scene.path("f")).unwrap();
    assert!(file.len() == SIZE && file.iter().enumerate().all(|(n, b)| *b == (n % 251) as u8));
    assert!(!scene.path("f.part").exists() && !scene.path("f.part.json").exists());
    assert_eq!(scene.seen.lock().unwrap().len(), 2);
}

#[cfg(unix)]
#[test]
fn an_interrupt_is_code_130_and_keeps_what_came() {
    let (scene, half, leave) = halting(&["localhost"]);
    let mut child = begun(&scene, &half);
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let status = child.wait().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect::<Vec<_>>().join("\n");
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted after") && said.contains("MiB"), "{said}");
    assert!(!scene.path("f").exists() && scene.path("f.part").exists());
    drop(leave);
}

/// Peak of a process's memory, in KiB.
#[cfg(target_os = "linux")]
fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_large_answer_is_never_held_whole() {
    const PIECES: usize = 192;
    let (tell, sent) = mpsc::channel();
    let (leave, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let scene = Scene::new(&["localhost"], move |_, tls| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", (PIECES << 20) + 1);
        tls.write_all(head.as_bytes()).unwrap();
        for _ in 0..PIECES {
            tls.write_all(&vec![1; 1 << 20]).unwrap();
        }
        tls.flush().unwrap();
        tell.send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
        tls.write_all(&[1]).and_then(|()| tls.flush()).unwrap();
    });
    let mut child =
        scene.command(&["-o", "-", &scene.url("/large")]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    sent.recv().unwrap();
    let held = peak(child.id());
    leave.send(()).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(held < 64 << 10, "{held} KiB for an answer of {} KiB", PIECES << 10);
}
