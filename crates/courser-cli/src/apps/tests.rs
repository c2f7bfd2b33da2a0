//! The programs against each other, over queues with small windows, odd portions and few streams at once.

use std::path::PathBuf;
use std::sync::Arc;

use courser_core::ids::{Dir, Side, StreamId};

use super::body::Counter;
use super::echo::{EchoClient, EchoServer};
use super::fake::{Joint, Rules};
use super::hq_client::HqClient;
use super::hq_server::HqServer;
use super::perf_client::{PerfClient, Plan};
use super::perf_server::{Content, PerfServer};
use crate::failure::{Failure, Outcome};
use crate::hq;
use crate::perf_proto;
use crate::transport::{App, CODE_DIFFERS, Event, Peek, Streams, Wrote};

fn perf(plan: Plan, rules: Rules) -> (Joint, PerfClient, Counter, Counter, Outcome, Outcome) {
    let (down, up) = (Counter::default(), Counter::default());
    let mut server = PerfServer::new(plan.content.clone(), up.clone());
    let mut client = PerfClient::new(plan, down.clone());
    let mut joint = Joint::new(rules);
    client.start(&mut joint.end(Side::Client)).unwrap();
    let (c, s) = joint.run(&mut client, &mut server);
    (joint, client, down, up, c, s)
}

#[test]
fn perf_moves_everything_both_ways_in_every_content() {
    for content in [Content::Fill, Content::Pattern] {
        for (count, at_once, up, down) in [(1, 1, 100_000, 0), (4, 4, 30_001, 70_003), (20, 2, 56, 1024), (5, 9, 0, 0)]
        {
            let plan = Plan { timed: true, ..Plan::uniform(count, at_once, up, down, content.clone()) };
            let (joint, mut client, got_down, got_up, c, s) = perf(plan, Rules::default());
            assert_eq!((c, s), (Ok(()), Ok(())));
            assert!(client.done());
            assert_eq!((client.ended(), client.sent()), (count, count * up));
            assert_eq!((got_down.get(), got_up.get()), (count * down, count * up));
            assert_eq!(client.times().len() as u64, count);
            assert_eq!(joint.open_streams(), 0);
        }
    }
}

#[test]
fn perf_moves_files_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [0u64, 1, 65_536, 200_001];
    let files: Vec<PathBuf> = sizes.iter().map(|n| dir.path().join(format!("f{n}"))).collect();
    for (path, n) in files.iter().zip(sizes) {
        std::fs::write(path, crate::pattern::Pattern::of(n, crate::pattern::Way::Up).bytes(0, n as usize)).unwrap();
    }
    let content = Content::Files(Arc::from(files));
    let plan = Plan { up: sizes.into(), down: sizes.into(), ..Plan::uniform(4, 4, 0, 0, content) };
    let (_, client, down, up, c, s) = perf(plan, Rules::default());
    assert_eq!((c, s), (Ok(()), Ok(())));
    let total: u64 = sizes.iter().sum();
    assert!(client.done());
    assert_eq!((down.get(), up.get()), (total, total));
}

#[test]
fn a_byte_that_flips_on_the_way_down_fails_the_client() {
    let flip = Some((Side::Server, StreamId(4), 40_000));
    let plan = Plan::uniform(2, 2, 10, 50_000, Content::Pattern);
    let (joint, client, _, _, c, _) = perf(plan, Rules { flip, ..Rules::default() });
    match c.unwrap_err() {
        Failure::Differs { stream: 4, mismatch } => assert_eq!(mismatch.offset, 40_000),
        other => panic!("{other}"),
    }
    assert!(!client.done());
    assert_eq!(joint.closed, Some((Side::Client, CODE_DIFFERS)));
}

#[test]
fn a_byte_that_flips_on_the_way_up_fails_both_ends() {
    let head = perf_proto::HEAD_LEN as u64;
    let flip = Some((Side::Client, StreamId(0), head + 777));
    let plan = Plan::uniform(1, 1, 5000, 0, Content::Pattern);
    let (joint, _, _, up, c, s) = perf(plan, Rules { flip, ..Rules::default() });
    match s.unwrap_err() {
        Failure::Differs { stream: 0, mismatch } => assert_eq!(mismatch.offset, 777),
        other => panic!("{other}"),
    }
    assert!(up.get() < 5000);
    assert_eq!(joint.closed, Some((Side::Server, CODE_DIFFERS)));
    assert_eq!(c.unwrap_err().code(), 6);
}

/// A client of two lines: writes once to a stream, ends it or not, and keeps what comes.
struct Raw {
    dir: Dir,
    say: Vec<u8>,
    end: bool,
    give_up: bool,
    times: usize,
    take: bool,
    got: Vec<u8>,
    ends: usize,
    resets: usize,
    closed: Option<Failure>,
}

impl Raw {
    fn new(dir: Dir, say: &[u8]) -> Self {
        let say = say.to_vec();
        Self {
            dir,
            say,
            end: true,
            give_up: false,
            times: 1,
            take: true,
            got: vec![],
            ends: 0,
            resets: 0,
            closed: None,
        }
    }

    fn speak<S: Streams>(&mut self, link: &mut S) {
        while self.times > 0 {
            let Some(id) = link.open(self.dir) else { return };
            self.times -= 1;
            let mut sent = 0;
            while sent < self.say.len() {
                match link.write(id, &self.say[sent..]) {
                    Wrote::Took(n) => sent += n,
                    other => panic!("{other:?}"),
                }
            }
            if self.end {
                link.finish(id);
            }
            if self.give_up {
                link.reset(id, 9);
            }
        }
    }
}

impl App for Raw {
    fn on<S: Streams>(&mut self, link: &mut S, event: Event) -> Outcome {
        match event {
            Event::Connected | Event::Credit => self.speak(link),
            Event::Readable(id) | Event::Opened(id) if self.take => loop {
                let n = match link.peek(id) {
                    Peek::Data(d) => {
                        self.got.extend_from_slice(d);
                        d.len()
                    }
                    Peek::End => {
                        self.ends += 1;
                        break;
                    }
                    Peek::Reset(_) => {
                        self.resets += 1;
                        break;
                    }
                    Peek::Blocked | Peek::Gone => break,
                };
                link.consume(id, n);
            },
            Event::Closed(why) => self.closed = Some(why),
            _ => {}
        }
        Ok(())
    }

    fn done(&self) -> bool {
        false
    }
}

fn raw_perf(mut raw: Raw) -> (Joint, Raw) {
    let mut joint = Joint::new(Rules { streams: 4000, ..Rules::default() });
    let mut server = PerfServer::new(Content::Pattern, Counter::default());
    let _ = joint.run(&mut raw, &mut server);
    (joint, raw)
}

#[test]
fn a_one_way_request_is_answered_on_a_one_way_stream() {
    let (joint, raw) = raw_perf(Raw::new(Dir::Uni, &perf_proto::head(3000)));
    let id = StreamId::new(Side::Server, Dir::Uni, 0);
    let p = crate::pattern::Pattern::of(id.0, crate::pattern::Way::Down);
    assert_eq!(raw.got, p.bytes(0, 3000));
    assert_eq!((raw.ends, joint.open_streams()), (1, 0));
}

#[test]
fn a_stream_that_ends_before_its_head_is_ended_and_ignored() {
    for dir in [Dir::Bi, Dir::Uni] {
        let (joint, raw) = raw_perf(Raw::new(dir, &[0, 0, 0]));
        assert!(raw.got.is_empty() && raw.closed.is_none());
        assert_eq!(joint.open_streams(), 0);
    }
}

#[test]
fn a_request_that_is_given_up_leaves_nothing() {
    let raw = Raw { end: false, give_up: true, ..Raw::new(Dir::Bi, &perf_proto::head(10)) };
    let (joint, raw) = raw_perf(raw);
    assert_eq!((raw.got.len(), joint.open_streams()), (0, 0));
}

#[test]
fn answers_that_nobody_takes_are_bounded() {
    let raw = Raw { times: 3000, take: false, ..Raw::new(Dir::Uni, &perf_proto::head(1)) };
    let mut joint = Joint::new(Rules { streams: 1500, ..Rules::default() });
    let mut server = PerfServer::new(Content::Fill, Counter::default());
    let mut raw = raw;
    let (_, s) = joint.run(&mut raw, &mut server);
    assert_eq!(s.unwrap_err().code(), 6);
    assert!(raw.closed.is_some());
}

fn echo(streams: u64, bytes: u64, rules: Rules) -> (EchoClient, Counter, Outcome, bool) {
    let back = Counter::default();
    let mut server = EchoServer::new(Counter::default());
    let mut client = EchoClient::new(1, streams, bytes, back.clone());
    let mut joint = Joint::new(rules);
    joint.run(&mut client, &mut server).0.unwrap();
    client.open(&mut joint.end(Side::Client)).unwrap();
    if let (Err(e), _) = joint.run(&mut client, &mut server) {
        return (client, back, Err(e), false);
    }
    let opened = client.is_open();
    assert!(!client.done() || bytes == 0);
    let begun = client.transfer(&mut joint.end(Side::Client));
    let outcome = begun.and_then(|()| joint.run(&mut client, &mut server).0);
    (client, back, outcome, opened)
}

#[test]
fn echo_returns_every_byte_in_phases() {
    for (streams, bytes) in [(1, 1), (3, 100_000), (3, 2)] {
        let (client, back, outcome, opened) = echo(streams, bytes, Rules::default());
        assert_eq!(outcome, Ok(()));
        assert!(opened && client.done());
        assert_eq!(back.get(), streams * bytes);
    }
}

#[test]
fn echo_of_nothing_ends_too() {
    let (client, _, outcome, opened) = echo(2, 0, Rules::default());
    assert_eq!(outcome, Ok(()));
    assert!(opened && client.done());
}

#[test]
fn echo_tells_how_many_streams_the_server_allows() {
    let (client, _, _, opened) = echo(5, 10, Rules { streams: 2, ..Rules::default() });
    assert!(!opened);
    assert_eq!(client.opened(), 2);
}

#[test]
fn echo_finds_a_flipped_byte() {
    for offset in [0, 1, 4000] {
        let flip = Some((Side::Server, StreamId(0), offset));
        let (client, _, outcome, _) = echo(1, 5000, Rules { flip, ..Rules::default() });
        match outcome.unwrap_err() {
            Failure::Differs { stream: 0, mismatch } => assert_eq!(mismatch.offset, offset),
            other => panic!("{other}"),
        }
        assert!(!client.done());
    }
}

fn urls(names: &[String]) -> Vec<hq::Url> {
    names.iter().map(|n| hq::parse_url(&format!("https://server/{n}")).unwrap()).collect()
}

#[test]
fn hq_fetches_every_file() {
    let (www, downloads) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names: Vec<String> = (0..40).map(|i| format!("file{i}")).collect();
    for (i, n) in names.iter().enumerate() {
        std::fs::write(
            www.path().join(n),
            crate::pattern::Pattern::of(i as u64, crate::pattern::Way::Up).bytes(0, i * 997),
        )
        .unwrap();
    }
    let mut server = HqServer::new(Arc::new(www.path().to_owned()));
    let mut client = HqClient::new(urls(&names), downloads.path().to_owned());
    let mut joint = Joint::new(Rules::default());
    assert_eq!(joint.run(&mut client, &mut server), (Ok(()), Ok(())));
    assert!(client.done());
    for n in &names {
        assert_eq!(std::fs::read(www.path().join(n)).unwrap(), std::fs::read(downloads.path().join(n)).unwrap());
    }
    assert_eq!(client.bytes(), (0..40).map(|i| i * 997).sum::<u64>());
    assert_eq!(joint.open_streams(), 0);
}

#[test]
fn hq_refuses_what_is_not_there() {
    let (www, downloads) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut server = HqServer::new(Arc::new(www.path().to_owned()));
    let mut client = HqClient::new(urls(&["none".into()]), downloads.path().to_owned());
    let (c, s) = Joint::new(Rules::default()).run(&mut client, &mut server);
    assert_eq!(c.unwrap_err(), Failure::PeerReset { stream: 0, code: 1 });
    assert_eq!(s, Ok(()));
    assert!(!client.done());
}

#[test]
fn hq_refuses_requests_that_are_none_or_too_long() {
    let www = tempfile::tempdir().unwrap();
    std::fs::write(www.path().join("a"), "hello").unwrap();
    let long = format!("GET /{}\r\n", "x".repeat(hq::REQUEST_MAX));
    for (say, got, resets) in
        [("GET /a\r\n", "hello", 0), ("nonsense", "", 1), (long.as_str(), "", 1), ("GET /../a", "", 1)]
    {
        let mut raw = Raw::new(Dir::Bi, say.as_bytes());
        let mut server = HqServer::new(Arc::new(www.path().to_owned()));
        let mut joint = Joint::new(Rules { window: 8000, ..Rules::default() });
        let (_, s) = joint.run(&mut raw, &mut server);
        assert_eq!(s, Ok(()));
        assert_eq!((raw.got.as_slice(), raw.resets), (got.as_bytes(), resets), "{say:.20}");
    }
}
