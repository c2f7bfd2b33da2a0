//! Alternatives, and HTTP/3 against TCP. QUIC is played by a dialler that a test steers, and
//! at the end it is itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use courser_fetch::alt_svc::cache::Cache;
use courser_fetch::alt_svc::{Origin, network, parse};
use courser_fetch::body::{Incoming, Outgoing};
use courser_fetch::dns::Resolve;
use courser_fetch::error::Outcome;
use courser_fetch::offers::Offer;
use courser_fetch::race::{Racer, Way};
use courser_fetch::via::{Boxed, Dial, Dialled, Protocol, Steps, Target, Told, Via};
use courser_fetch::{Client, Error, Http, Options, Sink};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;

use crate::support::*;

/// How a dialler fares.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// A connection after so many milliseconds.
    Stands(u64),
    /// A refusal after so many.
    Fails(u64),
    /// Nothing, ever.
    Vanishes,
}

#[derive(Debug)]
struct Fake {
    protocol: Protocol,
    fate: Mutex<Fate>,
    /// Another fate for ports.
    at: Mutex<HashMap<u16, Fate>>,
    /// Where it was sent to.
    dialled: Mutex<Vec<Target>>,
    /// Requests that came, and what is answered.
    seen: Arc<Mutex<Vec<Request<()>>>>,
    status: Arc<AtomicUsize>,
    fields: Arc<Mutex<Vec<(&'static str, String)>>>,
}

impl Fake {
    fn new(protocol: Protocol, fate: Fate) -> Arc<Self> {
        Arc::new(Self {
            protocol,
            fate: Mutex::new(fate),
            at: Mutex::default(),
            dialled: Mutex::default(),
            seen: Arc::default(),
            status: Arc::new(AtomicUsize::new(200)),
            fields: Arc::default(),
        })
    }

    fn dials(&self) -> usize {
        self.dialled.lock().unwrap().len()
    }

    fn ports(&self) -> Vec<u16> {
        self.dialled.lock().unwrap().iter().map(|t| t.port).collect()
    }

    fn set(&self, port: u16, fate: Fate) {
        self.at.lock().unwrap().insert(port, fate);
    }
}

impl Dial for Fake {
    fn dial(&self, target: Target) -> Boxed<'static, Outcome<Dialled>> {
        let fate = self.at.lock().unwrap().get(&target.port).copied();
        let fate = fate.unwrap_or_else(|| *self.fate.lock().unwrap());
        self.dialled.lock().unwrap().push(target);
        let via = Arc::new(FakeVia {
            protocol: self.protocol,
            seen: self.seen.clone(),
            status: self.status.clone(),
            fields: self.fields.clone(),
        });
        Box::pin(async move {
            match fate {
                Fate::Stands(after) => {
                    tokio::time::sleep(Duration::from_millis(after)).await;
                    Ok(Dialled { via, steps: Steps::default(), route: None })
                }
                Fate::Fails(after) => {
                    tokio::time::sleep(Duration::from_millis(after)).await;
                    Err(Error::NoAnswer { peer: "fake".into(), why: "as the test wants".into() })
                }
                Fate::Vanishes => std::future::pending().await,
            }
        })
    }
}

#[derive(Debug)]
struct FakeVia {
    protocol: Protocol,
    seen: Arc<Mutex<Vec<Request<()>>>>,
    status: Arc<AtomicUsize>,
    fields: Arc<Mutex<Vec<(&'static str, String)>>>,
}

impl Via for FakeVia {
    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn remote(&self) -> SocketAddr {
        "192.0.2.1:443".parse().unwrap()
    }

    fn is_open(&self) -> bool {
        true
    }

    fn send(&self, request: Request<Outgoing>) -> Boxed<'_, Outcome<Response<Incoming>>> {
        self.seen.lock().unwrap().push(request.map(|_| ()));
        let body: Incoming = Full::new(Bytes::from("body")).map_err(|e| match e {}).boxed_unsync();
        let mut response = Response::new(body);
        *response.status_mut() = u16::try_from(self.status.load(Ordering::SeqCst)).unwrap().try_into().unwrap();
        for (name, value) in self.fields.lock().unwrap().iter() {
            response.headers_mut().append(*name, value.parse().unwrap());
        }
        Box::pin(async move { Ok(response) })
    }

    fn ready(&self) -> Boxed<'_, bool> {
        Box::pin(async { true })
    }
}

fn origin() -> Origin {
    Origin { host: "a.test".into(), port: 443 }
}

struct Course {
    tcp: Arc<Fake>,
    quic: Arc<Fake>,
    racer: Racer,
}

/// A racer that knows of an alternative at port 8443.
fn course(http: Http, tcp: Fate, quic: Fate) -> Course {
    told(r#"h3=":8443"; persist=1"#, http, (tcp, quic))
}

/// A racer that knows what a server told.
fn told(advice: &str, http: Http, (tcp, quic): (Fate, Fate)) -> Course {
    let mut cache = Cache::default();
    let advice = parse::advice([advice], 0).unwrap();
    cache.learn(&origin(), advice, network(), SystemTime::now());
    racing(cache, http, (tcp, quic), Zone::default())
}

fn racing(cache: Cache, http: Http, (tcp, quic): (Fate, Fate), zone: Zone) -> Course {
    let (tcp, quic) = (Fake::new(Protocol::Http2, tcp), Fake::new(Protocol::Http3, quic));
    let options = Arc::new(Options { http, ..Options::default() });
    let cache = Arc::new(Mutex::new(cache));
    let racer = Racer::new(options, (tcp.clone(), Some(quic.clone())), cache, Arc::new(zone));
    Course { tcp, quic, racer }
}

/// Name servers that a test steers: what they say, and after how many milliseconds.
#[derive(Clone, Debug, Default)]
struct Zone {
    records: Option<(u64, Vec<Offer>)>,
    addresses: Option<(u64, Vec<&'static str>)>,
}

impl Resolve for Zone {
    fn has_records(&self, _: &Origin) -> bool {
        self.records.is_some()
    }

    fn addresses(&self, host: &str, port: u16) -> Boxed<'_, Outcome<Vec<SocketAddr>>> {
        let (host, Some((after, list))) = (host.to_owned(), self.addresses.clone()) else {
            return Box::pin(std::future::pending());
        };
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            let list: Vec<_> = list.iter().map(|a| SocketAddr::new(a.parse().unwrap(), port)).collect();
            if list.is_empty() { Err(Error::NameNotFound { host, why: "as the test wants".into() }) } else { Ok(list) }
        })
    }

    fn offers(&self, _: &Origin) -> Boxed<'_, Vec<Offer>> {
        let Some((after, offers)) = self.records.clone() else { return Box::pin(std::future::pending()) };
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            offers
        })
    }
}

impl Course {
    /// What carries the requests, and how long that took.
    async fn run(&self) -> (Outcome<Protocol>, Duration) {
        let start = Instant::now();
        let outcome = self.racer.connect(&origin(), Way::Any).await;
        (outcome.map(|d| d.via.protocol()), start.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn quic_that_answers_in_its_head_start_runs_alone() {
    let c = course(Http::Auto, Fate::Stands(0), Fate::Stands(140));
    assert_eq!(c.run().await.0, Ok(Protocol::Http3));
    assert_eq!((c.tcp.dials(), c.quic.dials()), (0, 1));
    assert_eq!(c.quic.dialled.lock().unwrap()[0].port, 8443);
}

#[tokio::test(start_paused = true)]
async fn with_udp_blocked_tcp_answers_within_300_ms_and_quic_is_left_alone() {
    let c = course(Http::Auto, Fate::Stands(40), Fate::Vanishes);
    let (outcome, took) = c.run().await;
    assert_eq!(outcome, Ok(Protocol::Http2));
    assert!(took <= Duration::from_millis(300), "{took:?}");
    // The next one does not even try.
    let (outcome, took) = c.run().await;
    assert_eq!((outcome, took), (Ok(Protocol::Http2), Duration::from_millis(40)));
    assert_eq!(c.quic.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn quic_that_fails_at_once_costs_nothing() {
    let c = course(Http::Auto, Fate::Stands(40), Fate::Fails(1));
    let (outcome, took) = c.run().await;
    assert_eq!(outcome, Ok(Protocol::Http2));
    assert!(took < Duration::from_millis(60), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn slow_quic_that_beats_tcp_is_taken_and_stays_trusted() {
    let c = course(Http::Auto, Fate::Stands(400), Fate::Stands(300));
    assert_eq!(c.run().await.0, Ok(Protocol::Http3));
    assert_eq!(c.run().await.0, Ok(Protocol::Http3));
    assert_eq!(c.quic.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn quic_that_is_late_is_rehabilitated() {
    let c = course(Http::Auto, Fate::Stands(10), Fate::Stands(200));
    assert_eq!(c.run().await.0, Ok(Protocol::Http2));
    tokio::time::sleep(Duration::from_millis(100)).await;
    *c.quic.fate.lock().unwrap() = Fate::Stands(5);
    assert_eq!(c.run().await.0, Ok(Protocol::Http3));
}

#[tokio::test(start_paused = true)]
async fn quic_is_the_last_hope_when_tcp_fails() {
    let c = course(Http::Auto, Fate::Fails(0), Fate::Stands(900));
    assert_eq!(c.run().await.0, Ok(Protocol::Http3));
    let c = course(Http::Auto, Fate::Fails(0), Fate::Fails(900));
    assert_eq!(c.run().await.0.unwrap_err().code(), 4);
}

#[tokio::test(start_paused = true)]
async fn wishes_about_versions_are_kept() {
    let c = course(Http::Never3, Fate::Stands(0), Fate::Stands(0));
    assert_eq!((c.run().await.0, c.quic.dials()), (Ok(Protocol::Http2), 0));
    let c = course(Http::Only3, Fate::Stands(0), Fate::Fails(0));
    assert_eq!((c.run().await.0.unwrap_err().code(), c.tcp.dials()), (4, 0));
    // First the alternative, then the origin itself.
    assert_eq!(c.quic.ports(), [8443, 443]);
    let unknown = Origin { host: "b.test".into(), port: 443 };
    let c = course(Http::Prefer3, Fate::Stands(0), Fate::Stands(0));
    assert_eq!(c.racer.connect(&unknown, Way::Any).await.unwrap().via.protocol(), Protocol::Http3);
    let c = course(Http::Auto, Fate::Stands(0), Fate::Stands(0));
    assert_eq!(c.racer.connect(&unknown, Way::Any).await.unwrap().via.protocol(), Protocol::Http2);
}

/// Four alternatives, of which only the third answers.
const SEVERAL: &str = r#"h3=":1"; persist=1, h3=":2"; persist=1, h3=":3"; persist=1, h3=":4"; persist=1"#;

#[tokio::test(start_paused = true)]
async fn several_alternatives_run_one_after_the_other_in_one_race() {
    let c = told(SEVERAL, Http::Only3, (Fate::Stands(0), Fate::Vanishes));
    c.quic.set(3, Fate::Stands(20));
    let (outcome, took) = c.run().await;
    assert_eq!((outcome, took), (Ok(Protocol::Http3), Duration::from_millis(220)));
    assert_eq!(c.quic.ports(), [1, 2, 3]);
    // Those that were not faster with a head start are left alone: the next race begins with the winner.
    assert_eq!(c.run().await, (Ok(Protocol::Http3), Duration::from_millis(20)));
    assert_eq!(c.quic.ports(), [1, 2, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_alternative_that_is_refused_costs_no_time() {
    let c = told(SEVERAL, Http::Auto, (Fate::Stands(50), Fate::Fails(0)));
    c.quic.set(3, Fate::Stands(20));
    assert_eq!(c.run().await, (Ok(Protocol::Http3), Duration::from_millis(20)));
    assert_eq!((c.quic.ports(), c.tcp.dials()), (vec![1, 2, 3], 0));
    // All of them refuse: TCP waits for nothing either.
    let c = told(SEVERAL, Http::Auto, (Fate::Stands(50), Fate::Fails(0)));
    assert_eq!(c.run().await, (Ok(Protocol::Http2), Duration::from_millis(50)));
    assert_eq!(c.run().await, (Ok(Protocol::Http2), Duration::from_millis(50)), "all are left alone");
}

#[tokio::test(start_paused = true)]
async fn when_nothing_stands_nothing_is_learned_of_an_alternative() {
    let c = course(Http::Auto, Fate::Fails(0), Fate::Fails(0));
    for _ in 0..2 {
        assert_eq!(c.run().await.0.unwrap_err().code(), 4);
    }
    assert_eq!((c.quic.dials(), c.tcp.dials()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn several_alternatives_that_vanish_delay_tcp_no_longer_than_one() {
    let c = told(SEVERAL, Http::Auto, (Fate::Stands(40), Fate::Vanishes));
    assert_eq!(c.run().await, (Ok(Protocol::Http2), Duration::from_millis(190)));
    assert_eq!(c.quic.ports(), [1, 2], "what had not begun does not begin");
}

#[tokio::test(start_paused = true)]
async fn a_slower_alternative_that_stands_in_the_end_is_trusted_again() {
    let c = told(SEVERAL, Http::Auto, (Fate::Fails(0), Fate::Vanishes));
    c.quic.set(1, Fate::Stands(140));
    c.quic.set(2, Fate::Stands(10));
    assert_eq!(c.run().await, (Ok(Protocol::Http3), Duration::from_millis(110)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(c.run().await.0, Ok(Protocol::Http3));
    assert_eq!(c.quic.ports(), [1, 2, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn attempts_that_lost_are_bounded_and_end_with_the_client() {
    let c = told(SEVERAL, Http::Prefer3, (Fate::Stands(40), Fate::Vanishes));
    for n in 0..100 {
        let lone = Origin { host: format!("h{n}.test"), port: 443 };
        let dialled = c.racer.connect(&lone, Way::Any).await.unwrap();
        assert_eq!((dialled.via.protocol(), dialled.route), (Protocol::Http2, None));
    }
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    tokio::task::yield_now().await;
    assert!((1..=40).contains(&alive()), "{}", alive());
    c.racer.close();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(alive(), 0);
}

fn h3_at(port: u16) -> Offer {
    Offer { port, h3: true, tcp: true, ..Offer::default() }
}

/// A racer that knows nothing, beside name servers.
fn asking(http: Http, fates: (Fate, Fate), records: (u64, Vec<Offer>), addresses: (u64, Vec<&'static str>)) -> Course {
    racing(Cache::default(), http, fates, Zone { records: Some(records), addresses: Some(addresses) })
}

#[tokio::test(start_paused = true)]
async fn a_record_makes_the_first_visit_go_over_quic() {
    let fates = (Fate::Stands(0), Fate::Stands(30));
    let c = asking(Http::Auto, fates, (60, vec![h3_at(443)]), (20, vec!["192.0.2.1", "2001:db8::1"]));
    let dialled = c.racer.connect(&origin(), Way::Any).await.unwrap();
    let route = dialled.route.unwrap();
    assert_eq!((dialled.via.protocol(), route.told, route.port), (Protocol::Http3, Told::HttpsRecord, 443));
    let target = c.quic.dialled.lock().unwrap()[0].clone();
    assert_eq!((target.host.as_str(), target.addresses.len(), c.tcp.dials()), ("a.test", 2, 0));
}

#[tokio::test(start_paused = true)]
async fn records_delay_addresses_no_longer_than_50_ms() {
    let fates = (Fate::Stands(0), Fate::Stands(0));
    let c = asking(Http::Auto, fates, (10_000, vec![h3_at(443)]), (20, vec!["192.0.2.1"]));
    assert_eq!(c.run().await, (Ok(Protocol::Http2), Duration::from_millis(70)));
    assert_eq!((c.quic.dials(), c.tcp.dialled.lock().unwrap()[0].addresses.len()), (0, 1), "no name is asked twice");
    let c = asking(Http::Auto, fates, (30, vec![]), (20, vec!["192.0.2.1"]));
    assert_eq!(c.run().await, (Ok(Protocol::Http2), Duration::from_millis(30)), "no records are an answer too");
}

#[tokio::test(start_paused = true)]
async fn hints_save_the_wait_for_addresses() {
    let offer = Offer { hints: vec!["192.0.2.7".parse().unwrap()], ..h3_at(8443) };
    let c = asking(Http::Auto, (Fate::Stands(0), Fate::Stands(5)), (10, vec![offer]), (10_000, vec!["192.0.2.1"]));
    assert_eq!(c.run().await, (Ok(Protocol::Http3), Duration::from_millis(15)));
    let target = c.quic.dialled.lock().unwrap()[0].clone();
    assert_eq!((target.port, target.addresses[0].to_string().as_str()), (8443, "192.0.2.7"));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_leads_nowhere_costs_the_head_start_once() {
    let fates = (Fate::Stands(40), Fate::Vanishes);
    let c = asking(Http::Auto, fates, (0, vec![h3_at(443)]), (0, vec!["192.0.2.1"]));
    assert_eq!(c.run().await, (Ok(Protocol::Http2), Duration::from_millis(190)));
    assert_eq!(c.run().await, (Ok(Protocol::Http2), Duration::from_millis(40)));
    assert_eq!(c.quic.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_server_told_is_not_asked_for() {
    let c = course(Http::Auto, Fate::Stands(0), Fate::Stands(0));
    assert_eq!(c.run().await, (Ok(Protocol::Http3), Duration::ZERO), "its name servers never answer");
    let fates = (Fate::Stands(0), Fate::Stands(0));
    let c = asking(Http::Never3, fates, (10, vec![h3_at(443)]), (10, vec!["192.0.2.1"]));
    assert_eq!(c.run().await, (Ok(Protocol::Http2), Duration::ZERO), "nor is it where nothing comes of it");
}

#[tokio::test(start_paused = true)]
async fn the_last_alias_is_where_tcp_goes_first() {
    let alias = Offer { host: Some("pool.test".into()), port: 443, tcp: true, ..Offer::default() };
    let c = asking(Http::Auto, (Fate::Stands(5), Fate::Stands(0)), (10, vec![alias]), (0, vec![]));
    assert_eq!(c.run().await, (Ok(Protocol::Http2), Duration::from_millis(15)));
    let target = c.tcp.dialled.lock().unwrap()[0].clone();
    assert_eq!((target.host.as_str(), target.origin), ("pool.test", origin()));
    // Neither address nor record: the name is wrong.
    let c = asking(Http::Auto, (Fate::Stands(0), Fate::Stands(0)), (10, vec![]), (0, vec![]));
    assert_eq!(c.run().await.0.unwrap_err().code(), 3);
    // And nobody waits for records for ever.
    let c = asking(Http::Auto, (Fate::Stands(0), Fate::Stands(0)), (1_000_000, vec![]), (0, vec![]));
    let (outcome, took) = c.run().await;
    assert_eq!((outcome.unwrap_err().code(), took), (3, Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn wishes_about_versions_are_kept_with_records() {
    let fates = (Fate::Stands(0), Fate::Fails(0));
    let c = asking(Http::Only3, fates, (0, vec![h3_at(8443)]), (0, vec!["192.0.2.1"]));
    assert_eq!((c.run().await.0.unwrap_err().code(), c.tcp.dials(), c.quic.ports()), (4, 0, vec![8443, 443]));
    let c = asking(Http::Prefer3, fates, (0, vec![]), (0, vec!["192.0.2.1"]));
    assert_eq!((c.run().await.0, c.quic.ports()), (Ok(Protocol::Http2), vec![443]));
}

/// A client between a played TCP and a played QUIC, whose memory is in a file.
fn played(file: &std::path::Path, tcp: &Arc<Fake>, quic: &Arc<Fake>) -> Client {
    let options = Options { alt_svc: Some(file.to_owned()), ..Options::default() };
    Client::with(Arc::new(options), tcp.clone(), Some(quic.clone()))
}

async fn spoken(c: &Client) -> Protocol {
    let done = fetch(c, &job("https://a.test/", Sink::Nothing)).await;
    done.head.unwrap_or_else(|| panic!("{:?}", done.failed)).protocol
}

#[tokio::test]
async fn advice_is_used_by_the_next_run_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alt-svc.json");
    let (tcp, quic) = (Fake::new(Protocol::Http2, Fate::Stands(0)), Fake::new(Protocol::Http3, Fate::Stands(0)));
    let advise = |text: &str| *tcp.fields.lock().unwrap() = vec![("alt-svc", text.to_owned())];
    advise(r#"h3="alt.test:8443"; ma=600"#);
    let c = played(&file, &tcp, &quic);
    assert_eq!(spoken(&c).await, Protocol::Http2);
    c.close().await.unwrap();
    let c = played(&file, &tcp, &quic);
    assert_eq!(spoken(&c).await, Protocol::Http3);
    let target = quic.dialled.lock().unwrap()[0].clone();
    assert_eq!((target.host.as_str(), target.port, target.origin), ("alt.test", 8443, origin()));
    assert_eq!(quic.seen.lock().unwrap()[0].headers()["alt-used"], "alt.test:8443");
    // Advice is over when it said it would be.
    let text = std::fs::read_to_string(&file).unwrap();
    let mut memory: serde_json::Value = serde_json::from_str(&text).unwrap();
    let until = &mut memory["origins"]["a.test:443"][0]["until"];
    *until = (until.as_u64().unwrap() - 600).into();
    std::fs::write(&file, memory.to_string()).unwrap();
    assert_eq!(spoken(&played(&file, &tcp, &quic)).await, Protocol::Http2);
    // And when the server says so.
    for (advice, then) in [(r#"h3=":443""#, Protocol::Http3), ("clear", Protocol::Http2)] {
        advise(advice);
        let c = played(&file, &tcp, &quic);
        let options = Options { alt_svc: Some(file.clone()), http: Http::Never3, ..Options::default() };
        let direct = Client::with(Arc::new(options), tcp.clone(), None);
        assert_eq!(spoken(&direct).await, Protocol::Http2);
        direct.close().await.unwrap();
        drop(c);
        assert_eq!(spoken(&played(&file, &tcp, &quic)).await, then, "{advice}");
    }
}

#[tokio::test]
async fn an_alternative_that_does_not_know_the_origin_is_not_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alt-svc.json");
    let (tcp, quic) = (Fake::new(Protocol::Http2, Fate::Stands(0)), Fake::new(Protocol::Http3, Fate::Stands(0)));
    *tcp.fields.lock().unwrap() = vec![("alt-svc", r#"h3=":8443""#.to_owned())];
    let c = played(&file, &tcp, &quic);
    assert_eq!(spoken(&c).await, Protocol::Http2);
    c.close().await.unwrap();
    quic.status.store(421, Ordering::SeqCst);
    let c = played(&file, &tcp, &quic);
    assert_eq!(spoken(&c).await, Protocol::Http2);
    c.close().await.unwrap();
    assert_eq!(spoken(&played(&file, &tcp, &quic)).await, Protocol::Http2);
    assert_eq!(quic.dials(), 1);
}

/// An HTTP/2 server that says where HTTP/3 is, and a client's choices that remember it in a file.
async fn advising(port: u16) -> (Server, tempfile::TempDir, impl Fn(&mut Options)) {
    let field = format!("h3=\":{port}\"; persist=1");
    let server = Server::start(Kind::H2, at_once(move |_| answer(200, &[("alt-svc", &field)], "over TCP"))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alt-svc.json");
    (server, folder, move |o: &mut Options| (o.http, o.alt_svc) = (Http::Auto, Some(file.clone())))
}

/// One run of a program that gets a page.
async fn run(server: &Server, choices: &impl Fn(&mut Options)) -> (Protocol, Duration) {
    let c = client_of(Kind::H1, |o| choices(o));
    let done = fetch(&c, &job(&server.url("/"), Sink::Nothing)).await;
    c.close().await.unwrap();
    (done.head.unwrap_or_else(|| panic!("{:?}", done.failed)).protocol, done.timing.total.unwrap())
}

#[tokio::test]
async fn the_second_run_goes_over_quic() {
    let quic = Server::start(Kind::H3, at_once(|_| answer(200, &[], "over QUIC"))).await;
    let (tcp, _folder, choices) = advising(quic.addr.port()).await;
    let choices = |o: &mut Options| {
        choices(o);
        // QUIC has all the time it wants: nothing here is about who is faster.
        o.head_start = Duration::from_secs(60);
    };
    assert_eq!(run(&tcp, &choices).await.0, Protocol::Http2);
    assert_eq!(run(&tcp, &choices).await.0, Protocol::Http3);
    let seen = &quic.requests()[0];
    assert_eq!(seen.headers["alt-used"], format!("localhost:{}", quic.addr.port()));
    assert_eq!((tcp.requests().len(), quic.requests().len()), (1, 1));
}

#[tokio::test]
async fn udp_that_is_swallowed_costs_the_head_start_once() {
    let hole = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (tcp, folder, choices) = advising(hole.local_addr().unwrap().port()).await;
    assert_eq!(run(&tcp, &choices).await.0, Protocol::Http2);
    let (protocol, took) = run(&tcp, &choices).await;
    assert_eq!(protocol, Protocol::Http2);
    assert!(took >= Options::default().head_start, "QUIC had its head start: {took:?}");
    let memory = std::fs::read_to_string(folder.path().join("alt-svc.json")).unwrap();
    assert!(memory.contains("broken_until"), "{memory}");
    hole.set_nonblocking(true).unwrap();
    assert_eq!(run(&tcp, &choices).await.0, Protocol::Http2);
    // Each client has a socket of its own: one of them tried QUIC, and the last words of that may come late.
    let datagrams = std::iter::from_fn(|| hole.recv_from(&mut [0; 2000]).ok());
    let clients: std::collections::HashSet<SocketAddr> = datagrams.map(|(_, from)| from).collect();
    assert_eq!(clients.len(), 1, "{clients:?}");
}

#[tokio::test]
async fn an_alternative_with_a_strangers_certificate_is_not_used() {
    let stranger = Server::named(Kind::H3, &["elsewhere.test"], at_once(|_| answer(200, &[], "mine now"))).await;
    let (tcp, _folder, choices) = advising(stranger.addr.port()).await;
    for _ in 0..3 {
        assert_eq!(run(&tcp, &choices).await.0, Protocol::Http2);
    }
    assert_eq!(
        (tcp.requests().len(), stranger.requests().len(), stranger.connections.load(Ordering::SeqCst)),
        (3, 0, 0)
    );
}
