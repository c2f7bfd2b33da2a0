//! Nothing that is written down has a secret in it: logs at their most detailed, traces, and what `Debug` shows. A test of its
//! own program: there is one subscriber per process.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "common/lines.rs"]
mod lines;

mod common;

use std::fmt::Debug;
use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{ALPN, Identity, PATIENCE, loopback};
use courser::core::crypto::{KeyFactory as _, Secret, Suite, TlsOut};
use courser::core::engine::TokenKeys;
use courser::core::ids::{Level, Version};
use courser::qlog::{Qlog, QlogConfig};
use courser::tls::{AwsLc, ClientConfig, Credentials, KeyLog, Roots, ServerConfig};
use courser::{ClientOptions, EarlyData, Endpoint, Request, RetryPolicy, ServerOptions, TokenStore};
use lines::Lines;

/// What a secret is called, and its bytes.
type Named = (String, Vec<u8>);

/// Hears every secret of TLS.
#[derive(Clone, Default)]
struct Spy(Arc<Mutex<Vec<Named>>>);

impl Debug for Spy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Configurations show what they log keys to.
        f.write_str("Spy")
    }
}

impl KeyLog for Spy {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().push((label.to_owned(), secret.to_vec()));
    }
}

/// Looks for the first eight bytes of a secret: as they are, as digits of 16, and as a list of numbers.
fn places(secret: &[u8], within: &[u8]) -> Vec<&'static str> {
    let part = &secret[..8];
    let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = part.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
    let hex_list = part.iter().map(|byte| format!("0x{byte:02x}")).collect::<Vec<_>>().join(",");
    let dense: Vec<u8> = within.iter().filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
    let lower = dense.to_ascii_lowercase();
    let has = |all: &[u8], what: &[u8]| all.windows(what.len()).any(|window| window == what);
    let mut found = Vec::new();
    let forms = [("bytes", has(within, part)), ("hex", has(&lower, hex.as_bytes()))];
    let lists = [("list", has(&dense, list.as_bytes())), ("hex list", has(&lower, hex_list.as_bytes()))];
    found.extend(forms.into_iter().chain(lists).filter(|(_, is)| *is).map(|(form, _)| form));
    found
}

fn shown(what: &dyn Debug) -> Vec<u8> {
    format!("{what:?}\n{what:#?}").into_bytes()
}

/// Keys that come from a traffic secret, of all suites of its length.
fn keys_of(secret: &[u8]) -> Vec<Vec<u8>> {
    let suites: &[Suite] =
        if secret.len() == 48 { &[Suite::Aes256Gcm] } else { &[Suite::Aes128Gcm, Suite::ChaCha20Poly1305] };
    let secret = Secret::new(secret).unwrap();
    let materials = suites.iter().map(|suite| AwsLc.material(Version::V1, *suite, &secret));
    materials.flat_map(|m| [m.key.to_vec(), m.header.to_vec(), m.iv.to_vec()]).collect()
}

/// Address tokens as a store saves them.
fn tokens_of(store: &TokenStore) -> Vec<Vec<u8>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    store.save(file.path()).unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    let digits = text.lines().skip(1).filter_map(|line| line.split(' ').next());
    digits.map(|d| (0..d.len() / 2).map(|n| u8::from_str_radix(&d[2 * n..2 * n + 2], 16).unwrap()).collect()).collect()
}

const RESET_KEY: [u8; 32] = *b"\x91the key of stateless resets\xa7\xd2\xf3!";
const TOKEN_KEY: [u8; 32] = *b"\x81the key of address tokens\xa1\xb2\xc3\xd4\xe5\xf6";

fn server_options(identity: &Identity, spy: &Spy, qlog: &Qlog) -> ServerOptions {
    let credentials = Credentials::from_pem(identity.0.certificate_pem().as_bytes(), identity.0.key_pem().as_bytes());
    let tls = ServerConfig::builder().certificate(credentials.unwrap()).alpn([ALPN]).early_data(true);
    let tls = tls.key_log(Arc::new(spy.clone())).build().unwrap();
    let options = ServerOptions::new(tls).retry(RetryPolicy::Always).qlog(qlog.clone());
    options.reset_key(RESET_KEY).token_keys(TokenKeys::new(TOKEN_KEY))
}

fn client_options(identity: &Identity, spy: &Spy, qlog: &Qlog, tokens: &TokenStore) -> ClientOptions {
    let roots = Roots::empty().add_der(identity.0.certificate_der()).unwrap();
    let tls = ClientConfig::builder().roots(roots).alpn([ALPN]).early_data(true).key_log(Arc::new(spy.clone()));
    ClientOptions::new(tls.build().unwrap()).qlog(qlog.clone()).tokens(tokens.clone())
}

/// One connection with an echo; what `Debug` shows of it, and whether it sent before the handshake.
fn exchange(server: &Endpoint, client: &Endpoint, tokens: &TokenStore) -> (Vec<u8>, EarlyData) {
    let answering = server.clone();
    let serving = std::thread::spawn(move || {
        let connection = answering.accept().unwrap().accept_early().unwrap();
        let (mut send, mut receive) = connection.accept_bi().unwrap();
        io::copy(&mut receive, &mut send).unwrap();
        send.finish().unwrap();
        let mut text = shown(&connection);
        text.extend(shown(&send));
        let _ = connection.closed();
        text
    });
    let to = Request::from(server.local_addr()).server_name("localhost").early_data();
    let connection = client.connect_with(to).unwrap();
    let (mut send, mut receive) = connection.open_bi().unwrap();
    send.write_all(b"hello").unwrap();
    send.finish().unwrap();
    let mut got = Vec::new();
    receive.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"hello");
    connection.established().unwrap();
    let begin = Instant::now();
    while tokens.is_empty() && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut text = shown(&connection);
    let early = connection.early_data();
    connection.close(7, b"enough");
    text.extend(serving.join().unwrap());
    (text, early)
}

#[test]
fn no_log_no_trace_and_no_debug_text_has_a_secret_in_it() {
    let lines = Lines::default();
    tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).with_env_filter("trace").init();
    let (identity, spy, tokens) = (Identity::new(), Spy::default(), TokenStore::new());
    let folder = tempfile::tempdir().unwrap();
    let qlog = Qlog::open(QlogConfig::new(folder.path())).unwrap();
    let (for_server, for_client) =
        (server_options(&identity, &spy, &qlog), client_options(&identity, &spy, &qlog, &tokens));
    let mut server = Endpoint::server(loopback(), for_server.clone()).unwrap();
    let mut client = Endpoint::client(for_client.clone()).unwrap();
    server.set_timeout(Some(PATIENCE));
    client.set_timeout(Some(PATIENCE));

    // The first one is asked to prove its address and gets tokens and tickets; the second one uses them.
    let mut text = Vec::new();
    let mut address_tokens = Vec::new();
    for resumed in [false, true] {
        let (said, early) = exchange(&server, &client, &tokens);
        assert_eq!(early == EarlyData::Accepted, resumed);
        text.extend(said);
        address_tokens.extend(tokens_of(&tokens));
        for what in [&server as &dyn Debug, &client, &for_server, &for_client, &tokens, &identity.0, &qlog] {
            text.extend(shown(what));
        }
    }
    assert!(server.stats().retries > 0, "an address was to be proved");
    drop((server, client, qlog));
    text.extend(lines.0.lock().unwrap().iter());
    let logged = text.len();
    assert!(lines.0.lock().unwrap().len() > 500, "there is a log");
    for file in std::fs::read_dir(folder.path()).unwrap() {
        text.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    assert!(text.len() > logged + 10_000, "there are traces");

    let mut secrets = spy.0.lock().unwrap().clone();
    for label in
        ["CLIENT_EARLY_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0", "EXPORTER_SECRET"]
    {
        assert!(secrets.iter().any(|(known, _)| known == label), "{label} was not heard of");
    }
    let keys: Vec<_> = secrets
        .iter()
        .flat_map(|(label, secret)| keys_of(secret).into_iter().map(move |key| (format!("key of {label}"), key)))
        .collect();
    secrets.extend(keys);
    assert!(!address_tokens.is_empty());
    secrets.extend(address_tokens.into_iter().map(|token| ("address token".to_owned(), token)));
    secrets.push(("key of resets".to_owned(), RESET_KEY.to_vec()));
    secrets.push(("key of tokens".to_owned(), TOKEN_KEY.to_vec()));
    let pem = identity.0.key_pem();
    secrets.push(("private key".to_owned(), pem.lines().nth(1).unwrap().as_bytes()[20..].to_vec()));
    for (label, secret) in &secrets {
        let found = places(secret, &text);
        assert!(found.is_empty(), "{label} as {found:?}");
    }
    let words = String::from_utf8_lossy(&text);
    assert!(!words.contains("stateless_reset_token"), "traces leave reset tokens out");
    println!("{} secrets, none of them in {} bytes", secrets.len(), text.len());
}

#[test]
fn the_search_finds_a_secret_in_every_form() {
    let secret = [0x5b, 0xe1, 7, 200, 0, 19, 0xaf, 3, 1];
    assert!(places(&secret, b"nothing of the sort 5b e1").is_empty());
    for (form, text) in [
        ("bytes", [b"ab".as_slice(), &secret, b"c"].concat()),
        ("hex", b"key=5BE107C80013AF0301;".to_vec()),
        ("list", shown(&secret)),
        ("hex list", b"[0x5b, 0xe1, 0x07, 0xc8, 0x00, 0x13, 0xaf, 0x03]".to_vec()),
    ] {
        assert!(places(&secret, &text).contains(&form), "{form}");
    }
}

#[test]
fn what_tls_hands_out_is_not_shown() {
    let secret = [0x5b, 0xe1, 7, 200, 0, 19, 0xaf, 3, 1];
    let out = TlsOut::Secrets { level: Level::OneRtt, suite: Suite::Aes128Gcm, client: &secret, server: &secret };
    assert_eq!(places(&secret, &shown(&out)), [""; 0]);
    assert_eq!(places(&secret, &shown(&TlsOut::Exporter(&secret))), [""; 0]);
}
