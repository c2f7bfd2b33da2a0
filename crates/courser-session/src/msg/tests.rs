//! Tests of the messages: every one survives being taken apart, and nothing else can be put together.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::handle::Kind;

fn handle_of(kind: Kind) -> impl Strategy<Value = Handle> {
    (any::<u8>(), 0u32..1 << 24, 1u32..1 << 28).prop_map(move |(worker, index, generation)| {
        format!("w{worker}/{kind}/{index}#{generation}").parse().expect("the text of a handle")
    })
}

fn any_handle() -> impl Strategy<Value = Handle> {
    prop::sample::select(Kind::ALL.to_vec()).prop_flat_map(handle_of)
}

fn stream() -> impl Strategy<Value = Handle> {
    handle_of(Kind::Stream)
}

fn connection() -> impl Strategy<Value = Handle> {
    handle_of(Kind::Connection)
}

fn data() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from)
}

fn endpoint() -> impl Strategy<Value = Box<Endpoint>> {
    (any::<SocketAddr>(), "[a-z.]{0,12}", any::<u32>())
        .prop_map(|(address, server_name, profile)| Box::new(Endpoint { address, server_name, profile }))
}

fn submission() -> impl Strategy<Value = Submission> {
    prop_oneof![
        (any::<u64>(), endpoint()).prop_map(|(token, at)| Submission::Listen { token, at }),
        (any::<u64>(), endpoint()).prop_map(|(token, to)| Submission::Connect { token, to }),
        any_handle().prop_map(|handle| Submission::Accept { handle }),
        (any_handle(), any::<u64>()).prop_map(|(handle, code)| Submission::Refuse { handle, code }),
        (connection(), any::<u64>()).prop_map(|(connection, token)| Submission::OpenBi { connection, token }),
        (connection(), any::<u64>()).prop_map(|(connection, token)| Submission::OpenUni { connection, token }),
        (stream(), data(), any::<bool>()).prop_map(|(stream, data, fin)| Submission::Write { stream, data, fin }),
        stream().prop_map(|stream| Submission::Finish { stream }),
        (stream(), any::<u64>()).prop_map(|(stream, bytes)| Submission::Consumed { stream, bytes }),
        (stream(), any::<u64>()).prop_map(|(stream, code)| Submission::Reset { stream, code }),
        (stream(), any::<u64>()).prop_map(|(stream, code)| Submission::Stop { stream, code }),
        (any_handle(), any::<u64>(), data()).prop_map(|(handle, code, reason)| Submission::Close {
            handle,
            code,
            reason
        }),
        (connection(), data(), any::<Option<u64>>()).prop_map(|(connection, data, tag)| Submission::Datagram {
            connection,
            data,
            tag
        }),
        (stream(), any::<u64>(), any::<u64>()).prop_map(|(stream, code, reliable_size)| Submission::ResetAt {
            stream,
            code,
            reliable_size
        }),
        (any_handle(), any::<u64>()).prop_map(|(handle, token)| Submission::Stats { handle, token }),
        Just(Submission::Wake),
    ]
}

fn rejection() -> impl Strategy<Value = Rejection> {
    use HandleError::{Foreign, Late, Unknown, WrongKind};
    prop_oneof![
        prop::sample::select(vec![Late, Unknown, Foreign, WrongKind]).prop_map(Rejection::Handle),
        Just(Rejection::Overrun),
        Just(Rejection::Argument),
    ]
}

fn figures() -> impl Strategy<Value = Box<SessionStats>> {
    any::<[u64; 8]>().prop_map(|n| {
        Box::new(SessionStats {
            written_bytes: n[0],
            read_bytes: n[1],
            datagrams_sent: n[2],
            datagrams_received: n[3],
            packets_lost: n[4],
            rtt_us: n[5],
            congestion_window_bytes: n[6],
            children: n[7],
        })
    })
}

fn completion() -> impl Strategy<Value = Completion> {
    let parent = prop_oneof![connection(), handle_of(Kind::Listener)];
    prop_oneof![
        (any::<u64>(), any_handle(), any::<u64>()).prop_map(|(token, handle, number)| Completion::Opened {
            token,
            handle,
            number
        }),
        (any::<u64>(), any::<u8>(), data()).prop_map(|(token, reason, text)| Completion::Failed {
            token,
            reason,
            text
        }),
        connection().prop_map(|connection| Completion::Established { connection }),
        (any_handle(), parent, any::<u64>()).prop_map(|(handle, parent, number)| Completion::Accepted {
            handle,
            parent,
            number
        }),
        (stream(), any::<u64>()).prop_map(|(stream, limit)| Completion::CreditGranted { stream, limit }),
        stream().prop_map(|stream| Completion::AllAcked { stream }),
        stream().prop_map(|stream| Completion::Readable { stream }),
        (stream(), any::<u64>(), data(), any::<bool>()).prop_map(|(stream, offset, data, fin)| Completion::Data {
            stream,
            offset,
            data,
            fin
        }),
        (stream(), any::<u64>()).prop_map(|(stream, code)| Completion::Reset { stream, code }),
        (stream(), any::<u64>()).prop_map(|(stream, code)| Completion::Stopped { stream, code }),
        (any_handle(), any::<u64>(), any::<u8>(), data()).prop_map(|(handle, code, reason, text)| Completion::Closed {
            handle,
            code,
            reason,
            text
        }),
        (connection(), data()).prop_map(|(connection, data)| Completion::Datagram { connection, data }),
        (connection(), any::<u64>(), any::<bool>()).prop_map(|(connection, tag, arrived)| Completion::DatagramFate {
            connection,
            tag,
            arrived
        }),
        connection().prop_map(|connection| Completion::DatagramRoom { connection }),
        (any_handle(), any::<[SocketAddr; 2]>()).prop_map(|(handle, [local, peer])| Completion::Addresses {
            handle,
            ends: Box::new(Addresses { local, peer })
        }),
        (any_handle(), any::<u64>(), figures()).prop_map(|(handle, token, stats)| Completion::Stats {
            handle,
            token,
            stats
        }),
        (any_handle(), prop::sample::select(Op::ALL.to_vec()), rejection())
            .prop_map(|(handle, op, why)| Completion::Rejected { handle, op, why }),
        Just(Completion::Wake),
    ]
}

/// Words that are handles often enough to get past the first check.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), any::<u64>(), any_handle().prop_map(Handle::raw)]
}

fn hostile() -> impl Strategy<Value = (Raw, Option<Payload>)> {
    let raw = (word(), word(), 0u32..4, 0u32..3, any::<u8>(), 0u8..8, prop_oneof![9 => Just(0u8), 1 => any::<u8>()]);
    let raw = raw.prop_map(|(handle, arg, len, chunk, op, flags, extra)| Raw {
        handle,
        arg,
        len,
        chunk,
        op,
        flags,
        reserved: [0, 0, extra, 0, 0, 0],
    });
    let payload = prop_oneof![
        Just(None),
        (0usize..4).prop_map(|len| Some(Payload::Bytes(Bytes::from(vec![1; len])))),
        endpoint().prop_map(|endpoint| Some(Payload::Endpoint(endpoint))),
        figures().prop_map(|stats| Some(Payload::Stats(stats))),
    ];
    (raw, payload)
}

/// Messages with a payload say nothing about its place.
fn without_place((raw, payload): (Raw, Option<Payload>)) -> (Raw, Option<Payload>) {
    let chunk = if payload.is_some() { 0 } else { raw.chunk };
    (Raw { chunk, ..raw }, payload)
}

proptest! {
    #[test]
    fn a_submission_survives_the_ring(submission in submission(), place: u32) {
        let (mut raw, payload) = submission.clone().split();
        prop_assert_eq!(Raw::from_bytes(&raw.to_bytes()), raw);
        if payload.is_some() {
            raw.chunk = place;
        }
        prop_assert_eq!(Submission::join(raw, payload.clone()), Ok(submission));
        prop_assert!(Completion::join(raw, payload).is_err(), "the directions share no op");
    }

    #[test]
    fn a_completion_survives_the_ring(completion in completion(), place: u32) {
        let (mut raw, payload) = completion.clone().split();
        prop_assert_eq!(Raw::from_bytes(&raw.to_bytes()), raw);
        if payload.is_some() {
            raw.chunk = place;
        }
        prop_assert_eq!(Completion::join(raw, payload.clone()), Ok(completion));
        prop_assert!(Submission::join(raw, payload).is_err(), "the directions share no op");
    }

    #[test]
    fn whatever_is_joined_splits_into_the_same_fields(parts in prop::collection::vec(hostile(), 16)) {
        for (raw, payload) in parts {
            if let Ok(submission) = Submission::join(raw, payload.clone()) {
                prop_assert_eq!(submission.split(), without_place((raw, payload.clone())));
            }
            if let Ok(completion) = Completion::join(raw, payload.clone()) {
                prop_assert_eq!(completion.split(), without_place((raw, payload)));
            }
        }
    }

    #[test]
    fn any_32_bytes_are_the_same_32_bytes_again(bytes: [u8; 32]) {
        prop_assert_eq!(Raw::from_bytes(&bytes).to_bytes(), bytes);
    }

    #[test]
    fn a_payload_of_another_length_is_refused(stream in stream(), data in data(), len: u32) {
        let size = u32::try_from(data.len()).unwrap();
        let (raw, payload) = Submission::Write { stream, data, fin: false }.split();
        let joined = Submission::join(Raw { len, ..raw }, payload);
        prop_assert_eq!(joined.is_ok(), len == size);
    }
}

#[test]
fn ops_have_bytes_of_their_own() {
    for op in Op::ALL {
        assert_eq!(Op::from_byte(op.byte()), Some(op));
    }
    assert_eq!((0..=255).filter_map(Op::from_byte).count(), Op::ALL.len());
}

#[test]
fn the_layout_is_the_one_in_the_table() {
    let stream: Handle = "w1/stream/2#3".parse().unwrap();
    let (raw, payload) = Submission::Write { stream, data: Bytes::from_static(b"hello"), fin: true }.split();
    assert_eq!(payload, Some(Payload::Bytes(Bytes::from_static(b"hello"))));
    let bytes = Raw { chunk: 0x0a0b_0c0d, arg: 9, ..raw }.to_bytes();
    assert_eq!(bytes[0..8], [2, 0, 0, 3, 0, 0, 0x30, 1]);
    assert_eq!(bytes[8..16], [9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[16..26], [5, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 7, 1]);
    assert_eq!(bytes[26..], [0; 6]);
}

#[test]
fn what_makes_no_sense_is_told_apart() {
    let stream: Handle = "w0/stream/0#1".parse().unwrap();
    let good = Raw { handle: stream.raw(), op: Op::Finish.byte(), ..Raw::default() };
    assert_eq!(Submission::join(good, None), Ok(Submission::Finish { stream }));
    let bytes = || Some(Payload::Bytes(Bytes::new()));
    for (raw, payload, error) in [
        (Raw { op: 0, ..good }, None, BadMessage::Op),
        (Raw { op: 255, ..good }, None, BadMessage::Op),
        (Raw { op: Op::Opened.byte(), ..good }, None, BadMessage::Op),
        (Raw { handle: 0, ..good }, None, BadMessage::Handle),
        (Raw { op: Op::OpenBi.byte(), ..good }, None, BadMessage::Handle),
        (Raw { op: Op::Wake.byte(), ..good }, None, BadMessage::Handle),
        (Raw { arg: 1, ..good }, None, BadMessage::Field),
        (Raw { flags: 1, ..good }, None, BadMessage::Field),
        (Raw { len: 1, ..good }, None, BadMessage::Field),
        (Raw { chunk: 1, ..good }, None, BadMessage::Field),
        (Raw { reserved: [0, 0, 0, 0, 0, 1], ..good }, None, BadMessage::Field),
        (good, bytes(), BadMessage::Payload),
        (Raw { op: Op::Write.byte(), ..good }, None, BadMessage::Payload),
        (Raw { op: Op::Write.byte(), flags: 2, ..good }, bytes(), BadMessage::Field),
    ] {
        assert_eq!(Submission::join(raw, payload), Err(error), "{raw:?}");
    }
}
