//! The order of frames, and the byte of a PING.

use super::*;

/// A client whose streams lack credit of every kind, and whose peer waits for credit of every kind.
fn in_want() -> (House, StreamId, StreamId) {
    let settings = Settings { stream_window: 1000, conn_window: 4000, ..Settings::default() };
    let peer = TransportParams {
        max_data: 2000,
        max_stream_data_bidi_local: 1000,
        max_stream_data_bidi_remote: 1000,
        max_stream_data_uni: 1000,
        max_streams_bidi: 2,
        max_streams_uni: 1,
        ..TransportParams::default()
    };
    let mut h = House::with(&settings, &peer);
    let (x, y) = (h.streams.open(Dir::Bi).unwrap(), h.streams.open(Dir::Bi).unwrap());
    let z = h.streams.open(Dir::Uni).unwrap();
    for (id, len) in [(x, 600), (y, 1500), (z, 800)] {
        assert_eq!(h.streams.write(id, &vec![id.0 as u8; len], &mut h.pool).unwrap(), len);
    }
    while !h.build(&House::plan(), 1200).0.is_empty() {}
    (h, x, y)
}

/// Frames that were in flight are lost, and others are due for the first time.
fn everybody_speaks(h: &mut House, x: StreamId, y: StreamId) {
    h.streams.reset(x, 1, &mut h.pool).unwrap();
    h.streams.stop_sending(x, 2, &mut h.pool).unwrap();
    h.streams.on_stream(y, 0, &[7; 600], false, &mut h.pool).unwrap();
    h.streams.read_with(y, &mut h.pool, |b| b.len()).unwrap();
    h.streams.on_blocked_fate(y, Fate::Lost);
    h.streams.on_span(Fate::Lost, &crate::spans::StreamSpan { id: y, offset: 100, len: 200, fin: false }, &mut h.pool);
    assert_eq!((h.streams.open(Dir::Bi), h.streams.open(Dir::Uni)), (None, None));
    for kind in [FrameKind::MaxData, FrameKind::DataBlocked, FrameKind::MaxStreamsBidi, FrameKind::MaxStreamsUni] {
        h.streams.on_frame_fate(kind, Fate::Lost);
    }
    h.done.request();
    let token = [[0x07, 40].as_slice(), &[9; 40]].concat();
    h.control.add(PRIORITY_TOKEN, Space::Data, FrameKind::NewToken, &token).unwrap();
    h.control.add(PRIORITY_CID, Space::Data, FrameKind::NewConnectionId, &new_connection_id(1)).unwrap();
    h.control.add(PRIORITY_CID, Space::Data, FrameKind::RetireConnectionId, &[0x19, 5]).unwrap();
    h.challenges.start([1; 8], Duration::ZERO, Instant::FAR_FUTURE);
    h.responses.push([2; 8]);
    h.acks.on_packet(NOW, 5, true, Ecn::NotEct);
    h.crypto.write(&[3; 50], &mut h.pool);
    h.datagrams.push(Bytes::from_static(b"datagram"), None, 1200).unwrap();
}

#[test]
fn frames_stand_in_the_order_of_their_groups() {
    // OSSL-PRI-01 to OSSL-PRI-10, OSSL-FIFM-21, OSSL-FIFD-10: everybody speaks at once.
    let (mut h, x, y) = in_want();
    everybody_speaks(&mut h, x, y);
    let (payload, _) = h.build(&House::plan(), 1200);
    let kinds = [
        FrameKind::HandshakeDone,
        FrameKind::MaxData,
        FrameKind::DataBlocked,
        FrameKind::MaxStreamsBidi,
        FrameKind::MaxStreamsUni,
        FrameKind::StreamsBlockedBidi,
        FrameKind::StreamsBlockedUni,
        FrameKind::NewConnectionId,
        FrameKind::RetireConnectionId,
        FrameKind::PathChallenge,
        FrameKind::PathResponse,
        FrameKind::Ack,
        FrameKind::NewToken,
        FrameKind::Crypto,
        FrameKind::ResetStream,
        FrameKind::StopSending,
        FrameKind::MaxStreamData,
        FrameKind::StreamDataBlocked,
        FrameKind::Stream,
        FrameKind::Datagram,
    ];
    assert_eq!(kinds_of(Level::OneRtt, &payload), kinds);
    let of = |frame: &Frame<'_>| match frame {
        Frame::ResetStream { id, .. } | Frame::StopSending { id, .. } => Some(*id),
        Frame::MaxStreamData { id, .. } | Frame::StreamDataBlocked { id, .. } | Frame::Stream { id, .. } => Some(*id),
        _ => None,
    };
    let streams: Vec<_> = frames(&payload, Level::OneRtt, Extensions::ALL).filter_map(|f| of(&f.unwrap())).collect();
    assert_eq!(streams, [x, x, y, y, y], "and so within each stream");
    assert_eq!(h.build(&House::plan(), 1200).0, [], "each of them once");
}

#[test]
fn the_order_holds_whatever_is_left_out_for_lack_of_room() {
    // The checker sees each packet: a smaller room leaves frames to later packets and never changes the order.
    for room in 1..600 {
        let (mut h, x, y) = in_want();
        everybody_speaks(&mut h, x, y);
        let mut seen = FrameSet::EMPTY;
        for _ in 0..60 {
            let (_, draft) = h.build(&House::plan(), room);
            seen = seen.union(draft.frames);
        }
        assert!(seen.contains(FrameKind::HandshakeDone));
        let all = room < 60 || (seen.contains(FrameKind::NewToken) && seen.contains(FrameKind::Stream));
        assert!(all, "in packets of {room}: {seen:?}");
    }
}

#[test]
fn a_ticket_overtakes_data_that_waited_before_it() {
    // OSSL-PRI-08
    let mut h = House::new();
    h.stream(100_000);
    h.build(&House::plan(), 1200);
    h.crypto.write(&[3; 300], &mut h.pool);
    let (payload, _) = h.build(&House::plan(), 1200);
    assert_eq!(kinds_of(Level::OneRtt, &payload), [FrameKind::Crypto, FrameKind::Stream]);
    let first = frames(&payload, Level::OneRtt, Extensions::NONE).next();
    assert!(matches!(first, Some(Ok(Frame::Crypto { offset: 0, data })) if data == [3; 300]), "all of it");
}

/// A packet that must ask for an acknowledgement.
fn probe() -> Plan<'static> {
    Plan { must_elicit: true, archetype: Archetype::Probe, ..House::plan() }
}

/// Acknowledgements of every other packet.
fn much_to_acknowledge() -> House {
    let mut h = House::new();
    (0..200).for_each(|pn| _ = h.acks.on_packet(NOW, 2 * pn, true, Ecn::NotEct));
    h
}

#[test]
fn the_byte_of_a_ping_stays_free_until_something_else_elicits() {
    // OSSL-PRI-11, OSSL-PRI-12
    let mut idle = House::new();
    assert_eq!(idle.kinds(&probe(), 1200), [FrameKind::Ping]);
    let mut with_ack = House::new();
    with_ack.acks.on_packet(NOW, 0, true, Ecn::NotEct);
    assert_eq!(with_ack.kinds(&probe(), 1200), [FrameKind::Ack, FrameKind::Ping]);
    let mut with_data = House::new();
    with_data.stream(10_000);
    let (payload, _) = with_data.build(&probe(), 100);
    assert_eq!((payload.len(), kinds_of(Level::OneRtt, &payload)), (100, vec![FrameKind::Stream]));
    // One byte of room is enough for the PING, and for nothing else.
    let mut tight = House::new();
    tight.stream(10_000);
    assert_eq!(tight.kinds(&probe(), 1), [FrameKind::Ping]);
}

#[test]
fn wishes_about_acks_leave_in_1_rtt_packets_alone() {
    //= ack-frequency#3-3 type=test
    // A probe asks for an ACK at once; what the peer is asked for is told in the same packet.
    let mut h = House::new();
    h.tolerance = crate::ack::tolerance::asked();
    let now = Plan { immediate: true, ..probe() };
    let early = Plan { level: Level::ZeroRtt, archetype: Archetype::Normal, immediate: true, ..House::plan() };
    h.stream(10);
    let kinds = h.kinds(&early, 1200);
    assert!(!kinds.contains(&FrameKind::AckFrequency) && !kinds.contains(&FrameKind::ImmediateAck), "{kinds:?}");
    assert_eq!(h.kinds(&now, 1200)[..2], [FrameKind::AckFrequency, FrameKind::ImmediateAck]);
    assert_eq!(h.kinds(&now, 1200), [FrameKind::ImmediateAck], "no PING is needed");
}

#[test]
fn acknowledgements_of_the_data_space_leave_in_1_rtt_packets_alone() {
    //= rfc9000#17.2.3-4 type=test
    let mut h = House::new();
    h.stream(10);
    h.acks.on_packet(NOW, 5, true, Ecn::NotEct);
    let early = Plan { level: Level::ZeroRtt, archetype: Archetype::Normal, ..House::plan() };
    assert_eq!(h.kinds(&early, 1200), [FrameKind::Stream]);
    assert_eq!(h.kinds(&House::plan(), 1200), [FrameKind::Ack]);
}

#[test]
fn an_ack_of_any_length_leaves_the_byte_of_a_ping() {
    // OSSL-PRI-12: ranges fill what they are given in steps of two bytes, so that every second room is used to its end.
    let mut filled = 0;
    for room in 1..460 {
        let mut h = much_to_acknowledge();
        let (payload, draft) = h.build(&probe(), room);
        assert!(draft.frames.contains(FrameKind::Ping), "{:?} in a room of {room}", draft.frames);
        assert_eq!(payload.last(), Some(&0x01));
        filled += usize::from(payload.len() == room);
        // Something else elicits: the byte is not kept, and the packet is full without a PING.
        if room > 60 {
            let mut h = much_to_acknowledge();
            h.control.add(PRIORITY_CID, Space::Data, FrameKind::RetireConnectionId, &[0x19, 5]).unwrap();
            let (payload, draft) = h.build(&probe(), room);
            assert!(!draft.frames.contains(FrameKind::Ping) && payload.len() + 3 >= room.min(400), "{room}");
        }
    }
    assert!(filled > 150, "{filled} packets were filled to the last byte");
    for room in 530..700 {
        let mut h = much_to_acknowledge();
        h.stream(10_000);
        let (payload, _) = h.build(&probe(), room);
        assert_eq!((payload.len(), kinds_of(Level::OneRtt, &payload)), (room, vec![FrameKind::Ack, FrameKind::Stream]));
    }
}
