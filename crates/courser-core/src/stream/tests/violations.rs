//! Each broken rule has its code, and what is allowed passes.

use super::*;
use crate::error::TransportCode;
use crate::ids::Dir::{Bi, Uni};
use crate::ids::Side::{Client, Server};

const STATE: TransportCode = TransportCode::STREAM_STATE_ERROR;
const LIMIT: TransportCode = TransportCode::STREAM_LIMIT_ERROR;
const FLOW: TransportCode = TransportCode::FLOW_CONTROL_ERROR;
const FINAL: TransportCode = TransportCode::FINAL_SIZE_ERROR;

fn settings() -> Settings {
    Settings {
        stream_window: 100,
        stream_window_max: 100,
        conn_window: 150,
        conn_window_max: 150,
        max_streams_bidi: 4,
        max_streams_uni: 2,
        ..Settings::default()
    }
}

fn stream(id: StreamId, offset: u64, data: &'static [u8], fin: bool) -> Frame<'static> {
    Frame::Stream { id, offset, data, fin, length_present: true }
}

/// What a server says to these frames; it opened one stream of each kind.
fn verdict(all: &[Frame<'_>]) -> Option<TransportCode> {
    let (_, mut server) = pair(&settings());
    assert_eq!(server.s.open(Bi), Some(StreamId(1)));
    assert_eq!(server.s.open(Uni), Some(StreamId(3)));
    let (last, first) = all.split_last().unwrap();
    first.iter().for_each(|f| server.frame(f).unwrap());
    server.frame(last).err().map(|v| v.code)
}

#[test]
fn frames_for_the_wrong_half_are_state_errors() {
    //= rfc9000#19.8-1 type=test
    //= rfc9000#19.4-1 type=test
    //= rfc9000#19.5-2 type=test
    //= rfc9000#19.10-2 type=test
    //= rfc9000#19.13-2 type=test
    let (ours, theirs) = (StreamId::new(Server, Uni, 0), StreamId::new(Client, Uni, 0));
    let send_only = [
        stream(ours, 0, b"x", false),
        Frame::ResetStream { id: ours, code: 0, final_size: 0 },
        Frame::ResetStreamAt { id: ours, code: 0, final_size: 0, reliable_size: 0 },
        Frame::StreamDataBlocked { id: ours, limit: 0 },
    ];
    let receive_only = [Frame::StopSending { id: theirs, code: 0 }, Frame::MaxStreamData { id: theirs, max: 1 }];
    for frame in send_only.into_iter().chain(receive_only) {
        assert_eq!(verdict(core::slice::from_ref(&frame)), Some(STATE), "{frame:?}");
    }
}

#[test]
fn frames_for_streams_that_we_have_not_opened_are_state_errors() {
    //= rfc9000#19.8-1 type=test
    //= rfc9000#19.5-1 type=test
    //= rfc9000#19.10-1 type=test
    let id = StreamId::new(Server, Bi, 1);
    let frames = [
        stream(id, 0, b"x", false),
        Frame::ResetStream { id, code: 0, final_size: 0 },
        Frame::ResetStreamAt { id, code: 0, final_size: 0, reliable_size: 0 },
        Frame::StreamDataBlocked { id, limit: 0 },
        Frame::StopSending { id, code: 0 },
        Frame::MaxStreamData { id, max: 1 },
    ];
    for frame in frames {
        assert_eq!(verdict(core::slice::from_ref(&frame)), Some(STATE), "{frame:?}");
    }
}

#[test]
fn every_frame_can_open_a_stream_and_none_beyond_the_limit() {
    //= rfc9000#4.6-3 type=test
    //= rfc9000#19.11-4 type=test
    let frames = |id| {
        [
            stream(id, 0, b"", false),
            Frame::ResetStream { id, code: 0, final_size: 0 },
            Frame::ResetStreamAt { id, code: 0, final_size: 0, reliable_size: 0 },
            Frame::StreamDataBlocked { id, limit: 0 },
            Frame::StopSending { id, code: 0 },
            Frame::MaxStreamData { id, max: 1 },
        ]
    };
    for frame in frames(StreamId::new(Client, Bi, 3)) {
        assert_eq!(verdict(&[frame]), None);
    }
    for frame in frames(StreamId::new(Client, Bi, 4)) {
        assert_eq!(verdict(core::slice::from_ref(&frame)), Some(LIMIT), "{frame:?}");
    }
}

#[test]
fn one_byte_beyond_the_credit_is_a_flow_control_error() {
    //= rfc9000#4.1-2 type=test
    //= rfc9000#19.9-2 type=test
    //= rfc9000#19.10-4 type=test
    let (x, y) = (StreamId::new(Client, Bi, 0), StreamId::new(Client, Bi, 1));
    assert_eq!(verdict(&[stream(x, 99, b"x", false)]), None);
    assert_eq!(verdict(&[stream(x, 100, b"x", false)]), Some(FLOW));
    assert_eq!(verdict(&[Frame::ResetStream { id: x, code: 0, final_size: 101 }]), Some(FLOW));
    assert_eq!(verdict(&[stream(x, 99, b"x", false), stream(y, 49, b"x", false)]), None);
    assert_eq!(verdict(&[stream(x, 99, b"x", false), stream(y, 50, b"x", false)]), Some(FLOW));
    let reset = |final_size| Frame::ResetStream { id: y, code: 0, final_size };
    //= rfc9000#4.5-1 type=test
    assert_eq!(verdict(&[stream(x, 99, b"x", false), reset(51)]), Some(FLOW));
    //= rfc9000#19.8-2 type=test
    assert_eq!(verdict(&[stream(x, (1 << 62) - 1, b"x", false)]), Some(FLOW));
}

#[test]
fn a_changed_final_size_is_a_final_size_error() {
    //= rfc9000#4.5-3 type=test
    //= rfc9000#4.5-4 type=test
    let id = StreamId::new(Client, Uni, 0);
    let end = stream(id, 0, b"four", true);
    assert_eq!(verdict(&[end.clone(), end.clone()]), None);
    for bad in [
        stream(id, 4, b"x", false),
        stream(id, 3, b"", true),
        Frame::ResetStream { id, code: 0, final_size: 3 },
        Frame::ResetStream { id, code: 0, final_size: 5 },
    ] {
        assert_eq!(verdict(&[end.clone(), bad.clone()]), Some(FINAL), "{bad:?}");
    }
    assert_eq!(verdict(&[stream(id, 9, b"x", false), end]), Some(FINAL));
}

#[test]
fn limits_on_streams_beyond_two_to_the_sixty_are_encoding_errors() {
    //= rfc9000#19.11-1 type=test
    //= rfc9000#19.14-2 type=test
    let code = Some(TransportCode::FRAME_ENCODING_ERROR);
    assert_eq!(verdict(&[Frame::MaxStreams { dir: Bi, max: (1 << 60) + 1 }]), code);
    assert_eq!(verdict(&[Frame::StreamsBlocked { dir: Uni, limit: (1 << 60) + 1 }]), code);
    assert_eq!(verdict(&[Frame::MaxStreams { dir: Bi, max: 1 << 60 }]), None);
}

#[test]
fn smaller_limits_are_old_news() {
    //= rfc9000#4.6-4 type=test
    //= rfc9000#13.3-5 type=test
    let (mut client, _) = pair(&settings());
    client.frame(&Frame::MaxStreams { dir: Bi, max: 1 }).unwrap();
    assert_eq!(core::iter::from_fn(|| client.s.open(Bi)).count(), 4);
    client.frame(&Frame::MaxStreamData { id: StreamId(0), max: 5 }).unwrap();
    client.frame(&Frame::MaxData { max: 5 }).unwrap();
    client.write(StreamId(0), &[0; 200]);
    let p = client.packet(1200, true).unwrap();
    //= rfc9000#4.1-1 type=test
    //= rfc9000#2.2-3 type=test
    //= rfc9000#19.10-3 type=test
    assert!(matches!(p.records[0], Record::Stream(s) if s.len == 100), "the stream's credit is used and no more");
}

#[test]
fn who_lacks_credit_says_so_once() {
    //= rfc9000#4.1-4 type=test
    //= rfc9000#19.12-1 type=test
    //= rfc9000#19.13-1 type=test
    let (mut client, mut server) = pair(&settings());
    let (x, y) = (client.s.open(Bi).unwrap(), client.s.open(Bi).unwrap());
    client.write(x, &[0; 200]);
    client.write(y, &[0; 200]);
    let mut told = Vec::new();
    while let Some(p) = client.packet(1200, true) {
        server.deliver(&p).unwrap();
        told.extend(p.conn);
        told.extend(p.records.iter().filter(|r| matches!(r, Record::StreamDataBlocked(_))).map(|_| FrameKind::Stream));
    }
    assert_eq!(told, [FrameKind::DataBlocked, FrameKind::Stream]);
    assert!(!client.s.has_data() && client.s.stats().active == 0);
    //= rfc9000#4.1-5 type=test
    client.s.repeat_blocked();
    assert!(client.s.has_data() && client.s.due(FrameKind::DataBlocked) == Some(150));
    let mut got = Vec::new();
    while let Some(id) = server.s.accept(Bi) {
        server.read_all(id, &mut got);
    }
    settle(&mut client, &mut server);
    for id in [x, y] {
        server.read_all(id, &mut got);
    }
    settle(&mut client, &mut server);
    [x, y].into_iter().for_each(|id| assert!(!server.read_all(id, &mut got)));
    settle(&mut client, &mut server);
    [x, y].into_iter().for_each(|id| assert!(!server.read_all(id, &mut got)));
    assert_eq!(got.len(), 400);
}

#[test]
fn frames_for_closed_streams_are_tolerated() {
    let (mut client, mut server) = pair(&settings());
    let id = client.s.open(Uni).unwrap();
    client.s.finish(id).unwrap();
    settle(&mut client, &mut server);
    server.s.accept(Uni).unwrap();
    assert!(server.read_all(id, &mut Vec::new()));
    assert_eq!((client.s.stats().open, server.s.stats().open), (0, 0));
    server.frame(&stream(id, 0, b"late", true)).unwrap();
    server.frame(&Frame::ResetStream { id, code: 1, final_size: 0 }).unwrap();
    client.frame(&Frame::StopSending { id, code: 1 }).unwrap();
    client.frame(&Frame::MaxStreamData { id, max: 1 << 30 }).unwrap();
    for fate in [Fate::Acked, Fate::Lost] {
        let span = crate::spans::StreamSpan { id, offset: 0, len: 9, fin: true };
        client.s.on_span(fate, &span, &mut client.pool);
        client.s.on_reset_fate(id, fate, &mut client.pool);
        client.s.on_max_stream_data_fate(id, fate);
    }
    assert_eq!((client.s.stats().open, server.s.stats().open, client.s.has_data()), (0, 0, false));
}

#[test]
fn rejected_early_data_is_sent_again_within_the_new_limits() {
    let (mut client, _) = pair(&Settings::default());
    let ids = [client.s.open(Uni).unwrap(), client.s.open(Uni).unwrap()];
    ids.iter().for_each(|id| assert_eq!(client.write(*id, &[3; 500]), 500));
    while client.packet(1200, true).is_some() {}
    client.s.restart(&TransportParams {
        max_data: 450,
        max_stream_data_uni: 300,
        max_streams_uni: 1,
        ..TransportParams::limits_of(&settings())
    });
    let Some(p) = client.packet(1200, true) else { panic!("nothing is sent again") };
    let spans: Vec<_> =
        p.records.iter().filter_map(|r| if let Record::Stream(s) = r { Some(*s) } else { None }).collect();
    assert_eq!(spans.len(), 1, "the second stream waits for a larger limit");
    assert_eq!((spans[0].id, spans[0].offset, spans[0].len), (ids[0], 0, 300));
    client.s.on_max_streams(Uni, 2).unwrap();
    let p = client.packet(1200, true).unwrap();
    assert!(p.records.iter().any(|r| matches!(r, Record::Stream(s) if s.id == ids[1] && s.len == 150)));
}

#[test]
fn a_stream_that_was_given_up_beyond_the_limit_of_a_server_that_rejected_0_rtt_is_not_named_before_the_limit_grows() {
    //= rfc9000#4.6-2 type=test
    let settings = settings();
    let (mut client, _) = pair(&Settings::default());
    let ids = [client.s.open(Bi).unwrap(), client.s.open(Bi).unwrap()];
    ids.iter().for_each(|id| assert_eq!(client.write(*id, &[3; 500]), 500));
    while client.packet(1200, true).is_some() {}
    client.s.restart(&TransportParams { max_streams_bidi: 1, ..TransportParams::limits_of(&settings) });
    ids.iter().for_each(|id| {
        client.s.reset(*id, 9, &mut client.pool).unwrap();
        client.s.stop_sending(*id, 9, &mut client.pool).unwrap();
    });
    let named = |client: &mut End, id| {
        let mut found = 0;
        while let Some(p) = client.packet(1200, true) {
            let of = |r: &&Record| matches!(r, Record::ResetStream(s) | Record::StopSending(s) if *s == id);
            found += p.records.iter().filter(of).count();
        }
        found
    };
    assert!(client.s.has_data());
    let (mut again, _) = (named(&mut client, ids[1]), client.s.has_data());
    assert_eq!((again, client.s.has_data()), (0, false), "nothing of the second stream, and no turn for it");
    client.s.on_max_streams(Bi, 2).unwrap();
    again = named(&mut client, ids[1]);
    assert_eq!(again, 2, "both frames, once there is room");
}
