//! Engines that share a port, or take it over: a configuration that changes, tokens that pass once among all, and which
//! connection IDs belong to handshakes under way.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use super::pair::{Pair, Watcher, config};
use crate::cid::{Seat, SeatCids};
use crate::config::Settings;
use crate::engine::{Engine, RetryPolicy, ServerConfig, Ticket, TokenKeys, TokenLedger, UsedTokens};
use crate::protect::null::{NullTlsClient, NullTlsServer};

/// A ledger of several engines.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<UsedTokens>>);

impl TokenLedger for Shared {
    fn is_used(&mut self, ticket: &Ticket) -> bool {
        self.0.lock().unwrap().is_used(ticket)
    }

    fn set_used(&mut self, ticket: Ticket, now_us: u64) {
        self.0.lock().unwrap().set_used(ticket, now_us);
    }
}

fn server(seed: u64, settings: &Settings, ledger: Option<Shared>) -> Engine {
    let mut config = config(seed, &Watcher::default());
    config.token_keys = Some(TokenKeys::new([1; 32]));
    config.token_ledger = ledger.map(|ledger| Box::new(ledger) as Box<dyn TokenLedger>);
    let mut server = ServerConfig::new(Box::new(NullTlsServer::default()), settings.clone());
    server.retry = RetryPolicy::Always;
    config.server = Some(server);
    Engine::new(config)
}

#[test]
fn a_token_passes_once_among_engines_that_share_a_ledger() {
    //= rfc9000#8.1.4-6 type=test
    for shared in [true, false] {
        let settings = Settings::default();
        let ledger = shared.then(Shared::default);
        let mut pair = Pair::new(&settings);
        pair.server = server(2, &settings, ledger.clone());
        let client = pair.connect(&settings);
        pair.establish();
        pair.run_for(Duration::from_secs(1));
        let token = pair.client.take_token(client).unwrap().expect("the server gave one");
        let retries = |engine_seed: u64, pair: &mut Pair| {
            pair.server = server(engine_seed, &settings, ledger.clone());
            let tls = NullTlsClient::default();
            let connect = crate::engine::Connect {
                remote: super::pair::SERVER.parse().unwrap(),
                server_name: "server",
                tls: &tls,
                settings: &settings,
                token: &token,
                restart: None,
            };
            pair.client.connect_with(pair.now, &connect).unwrap();
            pair.run_for(Duration::from_secs(1));
            pair.server.stats().retries
        };
        assert_eq!(retries(3, &mut pair), 0, "the first engine that sees it believes it");
        assert_eq!(retries(4, &mut pair), u64::from(shared), "the second one only if nobody told it");
    }
}

#[test]
fn a_replaced_configuration_is_for_new_connections() {
    let before = Settings { idle_timeout: Duration::from_secs(20), ..Settings::default() };
    let after = Settings { idle_timeout: Duration::from_secs(10), ..Settings::default() };
    let mut pair = Pair::new(&before);
    pair.connect(&before);
    let old = pair.establish();
    assert!(pair.server.replace_server(ServerConfig::new(Box::new(NullTlsServer::default()), after)));
    pair.connect(&before);
    pair.run_for(Duration::from_secs(1));
    let new = pair.server.keys().find(|key| *key != old).unwrap();
    assert_eq!(pair.server.settings(old).unwrap().idle_timeout, Duration::from_secs(20));
    assert_eq!(pair.server.settings(new).unwrap().idle_timeout, Duration::from_secs(10));
    let nobody = ServerConfig::new(Box::new(NullTlsServer::default()), Settings::default());
    assert!(!pair.client.replace_server(nobody), "who takes no connections does not begin to");
}

#[test]
fn handshakes_under_way_are_known_by_all_their_connection_ids() {
    let settings = Settings::default();
    let mut config = config(7, &Watcher::default());
    config.server = Some(ServerConfig::new(Box::new(NullTlsServer::default()), settings.clone()));
    let seat = Seat::new(2, 3, 1).unwrap();
    config.cids = Box::new(SeatCids::random(seat));
    let mut pair = Pair::new(&settings);
    pair.server = Engine::new(config);
    assert!(pair.server.unsettled_cids().is_empty());
    pair.connect(&settings);
    while pair.server.handshakes() == 0 {
        assert!(pair.step(), "the client's first datagram arrives");
    }
    pair.server.process(pair.now);
    let cids = pair.server.unsettled_cids();
    // The one that the client chose, and ours, which names the worker.
    assert!(cids.len() >= 2 && cids.iter().any(|cid| seat.is_named_by(cid.as_slice())), "{cids:?}");
    pair.run_for(Duration::from_secs(2));
    assert_eq!((pair.server.handshakes(), pair.server.connections()), (0, 1));
    assert!(pair.server.unsettled_cids().is_empty(), "they name their process from now on");
}
