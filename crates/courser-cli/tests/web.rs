//! `courser serve`, `proxy` and `config` as programs: signals, privileges, mistakes.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use common::web::{PATIENCE, Place, Web};
use common::{assert_fails, courser, identity, object, signal, text};

#[test]
fn a_folder_is_served_until_it_is_asked_to_end() {
    let place = Place::new();
    let log = place.dir.path().join("access.log");
    let mut web = place.serve(&["--header", "x-a: b", "--access-log", text(&log), "--metrics", "127.0.0.1:0"]);
    let figures = web.until("figures at");
    let answer = web.get(place.ca(), "/").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("home") && answer.contains("x-a: b"), "{answer}");
    let addr = figures.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    let mut tcp = TcpStream::connect(addr).unwrap();
    write!(tcp, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).unwrap();
    assert!(text.contains("courser_http_requests_total{version=\"1.1\",class=\"2xx\"} 1"), "{text}");
    signal(&web.child, "-TERM");
    assert_eq!(web.ended(), Some(0));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("\"GET / HTTP/1.1\" 200 4"), "{log}");
}

#[test]
fn requests_under_way_go_on_and_a_second_signal_ends_them() {
    for (second, complete) in [(false, true), (true, false)] {
        let place = Place::new();
        let big = vec![b'x'; 64 << 20];
        fs::write(place.dir.path().join("www/big"), &big).unwrap();
        let mut web = place.serve(&["--drain", "15s"]);
        let mut tls = web.connect(place.ca());
        write!(tls, "GET /big HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut first = [0; 1000];
        tls.read_exact(&mut first).unwrap();
        signal(&web.child, "-TERM");
        web.until("no new connections");
        // Nobody new is let in.
        let refused = Instant::now() + PATIENCE;
        while web.get(place.ca(), "/").is_ok() {
            assert!(Instant::now() < refused);
        }
        if second {
            signal(&web.child, "-TERM");
            assert_eq!(web.ended(), Some(0));
        }
        let mut rest = Vec::new();
        let read = tls.read_to_end(&mut rest);
        let found = first.len() + rest.len() > big.len();
        assert_eq!(found, complete, "{} {read:?}", rest.len());
        assert_eq!(web.ended(), Some(0));
    }
}

#[test]
fn time_limits_a_drain() {
    let place = Place::new();
    fs::write(place.dir.path().join("www/big"), vec![0; 64 << 20]).unwrap();
    let mut web = place.serve(&["--drain", "100ms"]);
    let mut tls = web.connect(place.ca());
    write!(tls, "GET /big HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    tls.read_exact(&mut [0; 100]).unwrap();
    signal(&web.child, "-TERM");
    web.until("what was left is closed");
    assert_eq!(web.ended(), Some(0));
}

#[test]
fn a_configuration_is_read_again_and_a_wrong_one_is_not_taken() {
    let place = Place::new();
    fs::create_dir(place.dir.path().join("other")).unwrap();
    fs::write(place.dir.path().join("other/index.html"), "other").unwrap();
    let site =
        |root: &str| format!("drain = \"1s\"\n[log]\naccess = \"log\"\n[[site]]\n[site.files]\nroot = \"{root}\"\n");
    let config = place.config(&site("www"));
    let mut web = Web::start(&["serve", "--config", &config]);
    assert!(web.get(place.ca(), "/").unwrap().ends_with("home"));
    for (wrong, said) in [
        (site("nowhere"), "nowhere: No such file"),
        (site("www").replace("root", "rot"), "courser.toml:10:1: nobody knows the key `rot`; did you mean `root`?"),
    ] {
        place.config(&wrong);
        signal(&web.child, "-HUP");
        let all = web.until("everything stays as it was");
        assert!(all.contains(said), "{all}");
        assert!(web.get(place.ca(), "/").unwrap().ends_with("home"));
    }
    // Another certificate, another folder, another log.
    let (old, log) = (place.dir.path().join("old.pem"), place.dir.path().join("log"));
    fs::copy(&place.cert, &old).unwrap();
    identity(place.dir.path(), (2021, 1, 1), (2050, 1, 1));
    place.config(&site("other"));
    fs::rename(&log, place.dir.path().join("log.1")).unwrap();
    signal(&web.child, "-HUP");
    web.until("are read again");
    assert!(web.get(place.ca(), "/").unwrap().ends_with("other"));
    assert!(web.get(&old, "/").is_err());
    place.config(&site("other").replace("[log]", "alt-svc = \"1h\"\n[log]").replace("1s", "2s"));
    signal(&web.child, "-HUP");
    web.until("are read again");
    // A successor that does not come up changes nothing.
    place.config(&site("nowhere"));
    signal(&web.child, "-USR2");
    web.until("this one goes on");
    assert!(web.get(place.ca(), "/").unwrap().ends_with("other"));
    assert_eq!(web.get_h3(&place.cert, "/"), "other");
    signal(&web.child, "-TERM");
    assert_eq!(web.ended(), Some(0));
    // One before the log was another, two behind.
    assert_eq!(fs::read_to_string(log).unwrap().lines().count(), 3);
}

#[test]
fn privileges_are_dropped_or_the_reason_is_told() {
    let place = Place::new();
    fs::set_permissions(place.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let listen = ["serve", &place.www(), "--listen", "127.0.0.1:0"];
    let with = |more: &[&str]| courser(&[&listen[..], more].concat());
    assert_fails(&with(&["--user", "nobody-of-that-name"]), 7, &["there is no user `nobody-of-that-name`"]);
    assert_fails(&with(&["--group", "daemon"]), 7, &["a group needs a user"]);
    let root = fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if !root {
        assert_fails(&with(&["--user", "nobody"]), 7, &["only root can become `nobody`"]);
        return;
    }
    let mut web = place.serve(&["--user", "nobody"]);
    for thread in fs::read_dir(format!("/proc/{}/task", web.child.id())).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let line = |name: &str| status.lines().find(|l| l.starts_with(name)).unwrap().to_owned();
        for name in ["Uid:", "Gid:"] {
            assert!(line(name).split_whitespace().skip(1).all(|id| id != "0"), "{}", line(name));
        }
        assert!(line("CapEff:").ends_with("0000000000000000"), "{}", line("CapEff:"));
    }
    assert!(web.get(place.ca(), "/").unwrap().ends_with("home"));
    signal(&web.child, "-INT");
    assert_eq!(web.ended(), Some(0));
}

#[test]
fn a_service_manager_is_told_and_its_environment_is_read() {
    let place = Place::new();
    let notify = place.dir.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let www = place.www();
    let env = [
        ("NOTIFY_SOCKET", text(&notify)),
        ("COURSER_ROOT", &www),
        ("COURSER_LISTEN", "127.0.0.1:0"),
        ("COURSER_CERT", &place.cert),
        ("COURSER_KEY", &place.key),
        ("COURSER_DRAIN", "1s"),
    ];
    let mut web = Web::start_with(&["serve"], &env);
    let heard = || {
        let mut buffer = [0; 100];
        let n = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    };
    assert_eq!(heard(), "READY=1");
    assert!(web.get(place.ca(), "/").unwrap().ends_with("home"));
    signal(&web.child, "-HUP");
    assert!(heard().starts_with("RELOADING=1"));
    assert_eq!(heard(), "READY=1");
    signal(&web.child, "-TERM");
    assert_eq!(heard(), "STOPPING=1");
    assert_eq!(web.ended(), Some(0));
}

#[test]
fn a_proxy_passes_on_what_its_origin_says() {
    let place = Place::new();
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}", origin.local_addr().unwrap());
    let args = ["--listen", "127.0.0.1:0", "--cert", &place.cert, "--key", &place.key, "--access-log", "off"];
    let web = Web::start(&[&["proxy", "--origin", &uri], &args[..]].concat());
    let answering = std::thread::spawn(move || {
        let (mut tcp, _) = origin.accept().unwrap();
        let mut asked = String::new();
        let mut lines = BufReader::new(tcp.try_clone().unwrap());
        while !asked.ends_with("\r\n\r\n") {
            lines.read_line(&mut asked).unwrap();
        }
        write!(tcp, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").unwrap();
        asked
    });
    let answer = web.get(place.ca(), "/a?b").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hi"), "{answer}");
    let asked = answering.join().unwrap();
    assert!(asked.starts_with("GET /a?b HTTP/1.1\r\n") && asked.contains("x-forwarded-for: 127.0.0.1"), "{asked}");
    // The origin has gone.
    let answer = web.get(place.ca(), "/").unwrap();
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("cannot be reached"), "{answer}");
}

#[test]
fn configurations_are_checked_and_shown() {
    let place = Place::new();
    let good = place.config("[[site]]\n[site.files]\nroot = \"www\"\n");
    let found = object(&courser(&["config", "check", &good, "--json"]));
    assert_eq!((&found["sites"], &found["addresses"]), (&1.into(), &1.into()));
    for (more, code, said) in [
        ("lisen = 1", 2, "courser.toml:5:1: nobody knows the key `lisen`; did you mean `listen`?"),
        ("", 2, "courser.toml: there is no site to serve"),
        ("[[site]]\n[site.files]\nroot = \"gone\"", 7, "gone"),
        ("[[site]]\nhosts = [\"a\"]\ncertificate = \"c\"\nkey = \"k\"\n[site.files]\nroot = \"www\"", 5, "c"),
        ("user = \"nobody-of-that-name\"\n[[site]]\n[site.files]", 7, "there is no user"),
    ] {
        let file = place.config(more);
        assert_fails(&courser(&["config", "check", &file]), code, &[said]);
    }
    let shown = courser(&["config", "default"]);
    let file = place.dir.path().join("default.toml");
    fs::write(&file, &shown.stdout).unwrap();
    assert_eq!(courser(&["config", "check", text(&file)]).status.code(), Some(0));
    assert_fails(&courser(&["proxy"]), 2, &["--origin"]);
    assert_fails(&courser(&["serve", "/nowhere/at/all"]), 7, &["/nowhere/at/all"]);
}
