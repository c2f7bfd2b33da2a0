//! A server gives its sockets to the next one while clients of each version ask: nobody is refused, nothing breaks off.
#![cfg(any(target_os = "linux", target_os = "android"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{AnyClient, PATIENCE, Running, VERSIONS, empty};
use courser_web::config::Config;
use courser_web::front::Order;
use courser_web::front::sockets::Inherited;
use courser_web::front::succession::Succession;
use http::{Request, Version};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

const LONG: usize = 24 << 20;

/// A server whose sockets come out of the channel when it gives them away, as from another process.
fn server(config: &Config, inherited: Inherited) -> (Running, mpsc::UnboundedReceiver<Succession>) {
    let (tell, told) = mpsc::unbounded_channel();
    let give = move |all: Succession| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sending = std::thread::spawn(move || all.send(&ours).unwrap());
        tell.send(Succession::receive(&theirs).unwrap()).unwrap();
        sending.join().unwrap();
        Ok(7)
    };
    (Running::go_on(config.clone(), inherited, give), told)
}

/// Asks until it is told to stop: one request behind the other, or each on a connection of its own. How many there were.
async fn ask(addr: SocketAddr, version: Version, anew: bool, stop: Arc<AtomicBool>, asked: Arc<AtomicU64>) -> u64 {
    let mut client = AnyClient::new(addr, version);
    let (mut count, mut repeated) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        if anew {
            client = AnyClient::new(addr, version);
        }
        match client.get("/small").await {
            Ok(got) => {
                assert_eq!((got.status, got.body.len()), (200, 1000), "{version:?}");
                (count, repeated) = (count + 1, 0);
                asked.fetch_add(1, Ordering::Relaxed);
            }
            // What a server says it did not touch is asked again, once.
            Err(e) if repeated == 0 && client.may_repeat(&e).await => repeated += 1,
            Err(e) => panic!("{version:?}, anew: {anew}, behind {count}: {e}"),
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_servers_follow_each_other() {
    let generations: usize = std::env::var("COURSER_GENERATIONS").map_or(3, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small"), [7; 1000]).unwrap();
    std::fs::write(dir.path().join("long"), vec![7; LONG]).unwrap();
    let text = format!(
        "[server]\nmetrics = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n[[site]]\n[site.files]\nroot = {:?}\n",
        dir.path()
    );
    let mut config = Config::parse(&text).unwrap();
    config.server.listen = vec![([127, 0, 0, 1], 0).into()];
    let (mut running, mut given) = server(&config, Inherited::default());
    let (addr, figures) = (running.addr, running.figures);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = JoinSet::new();
    for version in VERSIONS {
        for anew in [false, true] {
            clients.spawn(ask(addr, version, anew, Arc::clone(&stop), Arc::clone(&asked)));
        }
    }
    for _ in 0..generations {
        let more = asked.load(Ordering::Relaxed) + 20;
        while asked.load(Ordering::Relaxed) < more {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Under way while the servers change; it belongs to the old one.
        let mut long = Vec::new();
        for version in VERSIONS {
            let request = Request::get("/long").body(empty()).unwrap();
            long.push((version, AnyClient::new(addr, version).send(request).await.unwrap()));
        }
        running.orders.send(Order::HandOver).unwrap();
        let all = timeout(PATIENCE, given.recv()).await.unwrap().unwrap();
        let (next, next_given) = server(&config, all.into());
        assert_eq!((next.addr, next.figures), (addr, figures));
        let old = std::mem::replace(&mut running, next);
        given = next_given;
        for (version, response) in long {
            let body = timeout(PATIENCE, response.into_body().collect()).await.unwrap();
            assert_eq!(body.unwrap().to_bytes().len(), LONG, "{version:?}");
        }
        assert!(timeout(PATIENCE, old.served).await.unwrap().unwrap(), "it ends by itself, with everything answered");
        assert!(old.news.lock().unwrap().iter().any(|news| news == "Succeeded(7)"));
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(count) = clients.join_next().await {
        assert!(count.unwrap() > 0);
    }
    assert!(running.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_successor_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small"), [7; 1000]).unwrap();
    let running = Running::start(&format!("[[site]]\n[site.files]\nroot = {:?}\n", dir.path()));
    let clients = VERSIONS.map(|version| running.client(version));
    for _ in 0..2 {
        running.orders.send(Order::HandOver).unwrap();
        let heard = async {
            while !running.news.lock().unwrap().iter().any(|news| news.starts_with("NotSucceeded")) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, heard).await.unwrap();
        running.news.lock().unwrap().clear();
        for (client, version) in clients.iter().zip(VERSIONS) {
            for client in [client, &running.client(version)] {
                assert_eq!(client.get("/small").await.unwrap().status, 200, "{version:?}");
            }
        }
    }
    assert!(running.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hands_over_and_is_then_asked_to_end_has_the_time_of_a_drain() {
    for version in VERSIONS {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("huge"), vec![7; 48 << 20]).unwrap();
        let text = format!(
            "[server]\ndrain = \"100ms\"\n[log]\naccess = \"off\"\n[[site]]\n[site.files]\nroot = {:?}\n",
            dir.path()
        );
        let mut config = Config::parse(&text).unwrap();
        config.server.listen = vec![([127, 0, 0, 1], 0).into()];
        let (old, mut given) = server(&config, Inherited::default());
        let client = old.client(version);
        let response = client.send(Request::get("/huge").body(empty()).unwrap()).await.unwrap();
        old.orders.send(Order::HandOver).unwrap();
        let (next, _) = server(&config, timeout(PATIENCE, given.recv()).await.unwrap().unwrap().into());
        old.orders.send(Order::Drain).unwrap();
        assert!(!timeout(PATIENCE, old.served).await.unwrap().unwrap(), "{version:?}");
        assert!(timeout(PATIENCE, response.into_body().collect()).await.unwrap().is_err(), "{version:?}");
        assert!(next.end().await);
    }
}
