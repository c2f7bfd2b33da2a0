//! HTTPS records (RFC 9460) that a name server on loopback gives, byte by byte, up to the answer that they lead to.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use courser_fetch::alt_svc::Origin;
use courser_fetch::dns::{Names, Resolve};
use courser_fetch::offers::Offer;
use courser_fetch::via::{Protocol, Told};
use courser_fetch::{Client, Http, Options, Sink};
use tokio::net::UdpSocket;

use crate::support::*;

const A: u16 = 1;
const HTTPS: u16 = 65;

/// What there is, by name in lower case and type: the data of each record.
type Zone = HashMap<(String, u16), Vec<Vec<u8>>>;

/// A name server, and what it was asked.
struct NameServer {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
}

impl NameServer {
    async fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = Self { addr: socket.local_addr().unwrap(), asked: Arc::default() };
        let asked = server.asked.clone();
        tokio::spawn(async move {
            let mut buf = [0; 2048];
            while let Ok((n, from)) = socket.recv_from(&mut buf).await {
                let (question, end) = question(&buf[..n]);
                asked.lock().unwrap().push(question.clone());
                let _ = socket.send_to(&reply(&buf[..end], zone.get(&question)), from).await;
            }
        });
        server
    }

    fn asked(&self, name: &str, kind: u16) -> bool {
        self.asked.lock().unwrap().iter().any(|q| *q == (name.to_owned(), kind))
    }

    fn choices(&self, o: &mut Options) {
        (o.http, o.records, o.name_servers) = (Http::Auto, true, vec![self.addr]);
    }

    async fn offers(&self, host: &str, port: u16) -> Vec<Offer> {
        let mut options = Options::default();
        self.choices(&mut options);
        Names::new(Arc::new(options)).offers(&Origin { host: host.into(), port }).await
    }
}

/// The name and type of a question, and where it ends.
fn question(query: &[u8]) -> ((String, u16), usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..end].to_ascii_lowercase()).unwrap());
        at = end;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    ((labels.join("."), kind), at + 5)
}

/// An answer to a question with these records; without, that the name has none.
fn reply(query: &[u8], records: Option<&Vec<Vec<u8>>>) -> Vec<u8> {
    let none = Vec::new();
    let records = records.unwrap_or(&none);
    let kind = &query[query.len() - 4..query.len() - 2];
    let mut out = query[..2].to_vec();
    // A response with recursion, to one question.
    out.extend([0x81, 0x80, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    out.extend(&query[12..]);
    for data in records {
        // The name of the question, its type, IN, a minute.
        out.extend([0xc0, 12, kind[0], kind[1], 0, 1, 0, 0, 0, 60]);
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
    }
    out
}

fn name(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in text.split('.').filter(|l| !l.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

/// The data of an HTTPS record.
fn https(priority: u16, target: &str, parameters: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut out = priority.to_be_bytes().to_vec();
    out.extend(name(target));
    for (key, value) in parameters {
        out.extend(key.to_be_bytes());
        out.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        out.extend(value);
    }
    out
}

fn alpn(names: &[&str]) -> (u16, Vec<u8>) {
    (1, names.iter().flat_map(|n| [&[u8::try_from(n.len()).unwrap()], n.as_bytes()].concat()).collect())
}

fn port(port: u16) -> (u16, Vec<u8>) {
    (3, port.to_be_bytes().to_vec())
}

fn hint(addresses: &[Ipv4Addr]) -> (u16, Vec<u8>) {
    (4, addresses.iter().flat_map(Ipv4Addr::octets).collect())
}

fn zone(entries: &[(&str, u16, Vec<u8>)]) -> Zone {
    let mut zone = Zone::new();
    for (name, kind, data) in entries {
        zone.entry(((*name).to_owned(), *kind)).or_default().push(data.clone());
    }
    zone
}

async fn page(c: &Client, url: &str) -> courser_fetch::Done {
    let done = fetch(c, &job(url, Sink::Nothing)).await;
    assert_eq!(code(&done), 0, "{:?}", done.failed);
    done
}

#[tokio::test]
async fn a_record_leads_the_first_request_to_http_3_on_another_port() {
    let quic = Server::named(Kind::H3, &["web.test"], at_once(|_| answer(200, &[], "over QUIC"))).await;
    let tcp = Server::named(Kind::H2, &["web.test"], at_once(|_| answer(200, &[], "over TCP"))).await;
    let owner = format!("_{}._https.web.test", tcp.addr.port());
    // Without an address of its own, so that the record is waited for; the name is the origin's all the same.
    let hints = hint(&[Ipv4Addr::LOCALHOST]);
    let record = https(1, "web.test", &[alpn(&["h3", "h2"]), port(quic.addr.port()), hints]);
    let server = NameServer::start(zone(&[(&owner, HTTPS, record)])).await;
    let url = format!("https://web.test:{}/", tcp.addr.port());
    let c = client_of(Kind::H1, |o| {
        server.choices(o);
        o.head_start = std::time::Duration::from_secs(60);
    });
    let done = page(&c, &url).await;
    let head = done.head.unwrap();
    assert_eq!((head.protocol, head.told), (Protocol::Http3, Some(Told::HttpsRecord)));
    assert!(!quic.requests()[0].headers.contains_key("alt-used"), "that is of Alt-Svc");
    assert!(done.timing.dns.unwrap() <= done.timing.handshake.unwrap());
    c.close().await.unwrap();
    assert!(server.asked(&owner, HTTPS));
    let server = NameServer::start(zone(&[("web.test", A, vec![127, 0, 0, 1])])).await;
    // Without records the same client goes where the URL says.
    let c = client_of(Kind::H1, |o| {
        server.choices(o);
        o.records = false;
    });
    let head = page(&c, &url).await.head.unwrap();
    assert_eq!((head.protocol, head.told), (Protocol::Http2, None));
    assert!(server.asked("web.test", A) && !server.asked(&owner, HTTPS));
    c.close().await.unwrap();
}

#[tokio::test]
async fn a_record_for_tcp_alone_leads_there() {
    let elsewhere = Server::named(Kind::H2, &["web.test"], at_once(|_| answer(200, &[], "elsewhere"))).await;
    let hints = hint(&[Ipv4Addr::LOCALHOST]);
    let record = https(1, "pool.test", &[alpn(&["h2"]), port(elsewhere.addr.port()), hints]);
    let server = NameServer::start(zone(&[("web.test", HTTPS, record)])).await;
    let c = client_of(Kind::H1, |o| server.choices(o));
    assert_eq!(page(&c, "https://web.test/").await.head.unwrap().protocol, Protocol::Http2);
    assert_eq!(elsewhere.requests().len(), 1);
    assert!(!server.asked("pool.test", A), "the hint is enough");
    c.close().await.unwrap();
}

#[tokio::test]
async fn aliases_are_followed_and_their_end_counts() {
    let server = NameServer::start(zone(&[
        ("web.test", HTTPS, https(0, "one.test", &[])),
        ("one.test", HTTPS, https(0, "two.test", &[])),
        ("two.test", HTTPS, https(1, ".", &[alpn(&["h3"]), port(8443)])),
        ("bare.test", HTTPS, https(0, "end.test", &[])),
    ]))
    .await;
    let two = |port, h3| Offer { host: Some("two.test".into()), port, h3, tcp: true, hints: Vec::new() };
    assert_eq!(server.offers("web.test", 443).await, [two(8443, true), two(443, false)]);
    let end = Offer { host: Some("end.test".into()), port: 443, tcp: true, ..Offer::default() };
    assert_eq!(server.offers("bare.test", 443).await, [end]);
    assert_eq!(server.offers("nothing.test", 443).await, []);
}

#[tokio::test]
async fn aliases_without_end_lead_nowhere() {
    let mut entries = vec![("loop.test".to_owned(), "loop.test".to_owned())];
    entries.extend((0..20).map(|n| (format!("n{n}.test"), format!("n{}.test", n + 1))));
    let entries: Vec<_> = entries.iter().map(|(from, to)| (from.as_str(), HTTPS, https(0, to, &[]))).collect();
    let server = NameServer::start(zone(&entries)).await;
    for host in ["loop.test", "n0.test"] {
        assert_eq!(server.offers(host, 443).await, [], "{host}");
    }
    assert!(server.asked("n4.test", HTTPS) && !server.asked("n5.test", HTTPS), "four are followed");
}

#[tokio::test]
async fn what_a_hostile_name_server_says_is_bounded_and_harmless() {
    let nonsense: Vec<Vec<u8>> = vec![
        vec![],
        vec![0, 1],
        vec![0, 1, 63],
        // A parameter that is longer than the record; keys out of order; a length of protocols that is a lie.
        [https(1, ".", &[]), vec![0, 3, 0xff, 0xff, 1]].concat(),
        https(1, ".", &[port(1), alpn(&["h3"])]),
        https(1, ".", &[(1, vec![200, b'h', b'3'])]),
        https(1, ".", &[(3, vec![1])]),
        https(1, ".", &[(4, vec![1, 2, 3])]),
    ];
    for data in nonsense {
        let server = NameServer::start(zone(&[("web.test", HTTPS, data.clone())])).await;
        let offers = server.offers("web.test", 443).await;
        assert!(offers.iter().all(|o| o.port == 443 || !o.h3) && offers.len() <= 1, "{data:?}: {offers:?}");
    }
    let many = (1..=40).map(|n| ("web.test", HTTPS, https(n, ".", &[alpn(&["h3"]), port(n)])));
    let server = NameServer::start(zone(&many.collect::<Vec<_>>())).await;
    assert!(server.offers("web.test", 443).await.len() <= 8);
    let addresses: Vec<_> = (0..100).map(|n| Ipv4Addr::new(192, 0, 2, n)).collect();
    let server = NameServer::start(zone(&[("web.test", HTTPS, https(1, ".", &[hint(&addresses)]))])).await;
    assert_eq!(server.offers("web.test", 443).await[0].hints.len(), 8);
}

#[tokio::test]
async fn a_record_to_a_stranger_is_not_believed() {
    let stranger = Server::named(Kind::H3, &["elsewhere.test"], at_once(|_| answer(200, &[], "mine now"))).await;
    let tcp = Server::named(Kind::H2, &["web.test"], at_once(|_| answer(200, &[], "over TCP"))).await;
    let owner = format!("_{}._https.web.test", tcp.addr.port());
    let record = https(1, "web.test", &[alpn(&["h3"]), port(stranger.addr.port())]);
    let server = NameServer::start(zone(&[("web.test", A, vec![127, 0, 0, 1]), (&owner, HTTPS, record)])).await;
    let c = client_of(Kind::H1, |o| server.choices(o));
    let head = page(&c, &format!("https://web.test:{}/", tcp.addr.port())).await.head.unwrap();
    assert_eq!((head.protocol, stranger.requests().len()), (Protocol::Http2, 0));
    c.close().await.unwrap();
}
