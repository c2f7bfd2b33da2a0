//! All targets: those of the crates that have some of their own, and the others.

use std::time::Duration;

use courser_session::control;
use courser_session::msg::{Completion, Payload, Raw, Submission};

use crate::{corpus, fields, texts};

/// A parser, and what it is fed with.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
    /// Its share of all executions.
    pub(crate) weight: u64,
    /// Bytes of the largest piece of memory that one input may ask for.
    pub(crate) allocation: usize,
    pub(crate) corpus: Vec<Vec<u8>>,
    /// Words that its inputs are made of.
    pub(crate) words: &'static [&'static str],
}

/// What one datagram, message, line or file of [`crate::mutate::LEN_MAX`] bytes may ask for at once: the goal's figure.
const ALLOCATION_MAX: usize = 64 << 10;

impl Target {
    pub(crate) fn new(name: &'static str, run: fn(&[u8]), weight: u64, corpus: Vec<Vec<u8>>) -> Self {
        Self { name, run, weight, allocation: ALLOCATION_MAX, corpus, words: &[] }
    }

    fn with_words(self, words: &'static [&'static str]) -> Self {
        Self { words, ..self }
    }

    /// How long one input may take: the step budget, as time because no parser counts its steps. A build without optimisation is
    /// slower.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 100 })
    }
}

/// All of them; those that are quick have the largest shares.
pub(crate) fn targets() -> Vec<Target> {
    let core = |name: &'static str, weight| {
        let run = courser_testing::fuzz::target(name).unwrap();
        Target::new(name, run, weight, corpus::folder(name))
    };
    let h3 = |name: &'static str, weight, files: &[&str]| {
        let (_, run) = courser_h3::testing::fuzz::TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
        Target::new(name, run, weight, corpus::packed(files))
    };
    let text = |name, run, weight, words| Target::new(name, run, weight, corpus::texts(name)).with_words(words);
    vec![
        core("varint", 2000),
        core("header", 2000),
        core("frame", 2000),
        core("params", 1500),
        core("client_hello", 2000),
        core("token", 1000),
        core("engine", 2),
        h3("h3_frame", 300, &["frame-neqo", "settings-neqo", "capsule-neqo", "priority-neqo", "found-frame"]),
        h3("qpack", 40, &["found-qpack"]),
        h3("h3_connection", 20, &["found-connection"]),
        Target::new("post_handshake", courser_tls::fuzz::post_handshake, 1500, corpus::after_handshakes()),
        Target::new("control", control::fuzz::control, 2000, corpus::control()).with_words(&["quic", "courser"]),
        Target::new("message", message, 2000, corpus::messages()),
        text("stack_address", courser_session::stack::fuzz::address, 1000, texts::ADDRESS_WORDS),
        text("stack_config", courser_session::stack::fuzz::config, 300, texts::CONFIG_WORDS),
        text("target", texts::target, 1000, texts::ADDRESS_WORDS),
        text("listen_rule", texts::listen_rule, 1000, texts::ADDRESS_WORDS),
        text("units", texts::units, 1000, texts::UNIT_WORDS),
        text("server_config", texts::server_config, 60, texts::CONFIG_WORDS),
        text("qlog", texts::qlog, 100, texts::QLOG_WORDS),
        text("alt_svc", fields::alt_svc, 800, fields::ALT_SVC_WORDS),
        text("request_path", fields::request_path, 1000, fields::PATH_WORDS),
        text("request_fields", fields::request_fields, 400, fields::FIELD_WORDS),
        text("answer_fields", fields::answer_fields, 300, fields::FIELD_WORDS),
    ]
}

/// Messages of sessions between processes: 32 bytes, then what they carry.
fn message(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<{ Raw::SIZE }>() else { return };
    let raw = Raw::from_bytes(head);
    assert_eq!(raw.to_bytes(), *head, "every content is a message's");
    let bytes = || Some(Payload::Bytes(bytes::Bytes::copy_from_slice(rest)));
    for payload in [None, bytes()] {
        // Where a payload lies is for whoever moves it.
        let told = if payload.is_some() { Raw { chunk: 0, ..raw } } else { raw };
        if let Ok(submission) = Submission::join(raw, payload.clone()) {
            assert_eq!(submission.split(), (told, payload.clone()), "a submission with two writings");
            assert!(Completion::join(raw, payload.clone()).is_err(), "both a submission and a completion");
        }
        if let Ok(completion) = Completion::join(raw, payload.clone()) {
            assert_eq!(completion.split(), (told, payload), "a completion with two writings");
        }
    }
}
