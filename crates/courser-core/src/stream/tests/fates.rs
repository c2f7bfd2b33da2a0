//! Ranges of streams in packets that are lost or arrive.

use super::*;
use crate::ids::Dir;

/// Offsets, lengths and ends of the STREAM frames of a packet.
fn spans(p: &Packet) -> Vec<(u64, u32, bool)> {
    let spans = p.records.iter().filter_map(|r| if let Record::Stream(s) = r { Some(s) } else { None });
    let spans: Vec<_> = spans.map(|s| (s.offset, s.len, s.fin)).collect();
    let written = frames(&p.payload, Level::OneRtt, Extensions::NONE).filter_map(|f| match f {
        Ok(Frame::Stream { offset, data, fin, .. }) => Some((offset, data.len() as u32, fin)),
        _ => None,
    });
    assert!(written.eq(spans.iter().copied()), "what is remembered is what was written");
    spans
}

#[test]
fn two_ranges_of_one_stream_in_one_packet_share_its_fate() {
    // OSSL-FIFM-11, OSSL-FIFM-04
    for fate in [Fate::Acked, Fate::Lost] {
        let (mut a, mut b) = pair(&Settings::default());
        let id = a.s.open(Dir::Uni).unwrap();
        let mut sent = Vec::new();
        for at in [0, 100, 200] {
            a.write(id, &pattern(id, at, 100));
            sent.push(a.packet(1200, true).unwrap());
        }
        b.deliver(&sent[1]).unwrap();
        a.fate(&sent[1], Fate::Acked);
        [0, 2].iter().for_each(|i| a.fate(&sent[*i], Fate::Lost));
        a.write(id, &pattern(id, 300, 50));
        a.s.finish(id).unwrap();
        let both = a.packet(1200, true).unwrap();
        assert_eq!(spans(&both), [(0, 100, false), (200, 100, false), (300, 50, true)], "what arrived is left out");
        a.fate(&both, fate);
        match fate {
            Fate::Acked => {
                assert!(a.packet(1200, true).is_none());
                assert_eq!((a.pool.in_use(), a.s.stats().open), (0, 0));
                b.deliver(&both).unwrap();
            }
            _ => {
                let again = a.packet(1200, true).unwrap();
                assert_eq!(spans(&again), [(0, 100, false), (200, 150, true)], "neighbours are joined");
                b.deliver(&again).unwrap();
            }
        }
        let mut got = Vec::new();
        assert_eq!(b.s.accept(Dir::Uni), Some(id));
        assert!(b.read_all(id, &mut got) && got == pattern(id, 0, 350));
    }
}

#[test]
fn an_end_without_data_leaves_again_when_it_was_lost() {
    // OSSL-FIFM-13, OSSL-TXPIM-06: at offset zero and behind bytes that arrived.
    for len in [0, 700] {
        let (mut a, mut b) = pair(&Settings::default());
        let id = a.s.open(Dir::Uni).unwrap();
        if len > 0 {
            a.write(id, &pattern(id, 0, len));
            let p = a.packet(1200, true).unwrap();
            b.deliver(&p).unwrap();
            a.fate(&p, Fate::Acked);
        }
        a.s.finish(id).unwrap();
        for losses in 0..=3 {
            let p = a.packet(1200, true).unwrap();
            assert_eq!(spans(&p), [(len as u64, 0, true)], "after {losses} losses");
            assert!(a.packet(1200, true).is_none(), "once");
            if losses < 3 {
                a.fate(&p, Fate::Lost);
                continue;
            }
            b.deliver(&p).unwrap();
            a.fate(&p, Fate::Acked);
        }
        assert!(a.packet(1200, true).is_none() && a.s.stats().open == 0);
        let mut got = Vec::new();
        assert_eq!(b.s.accept(Dir::Uni), Some(id));
        // NGX-BUF-21: a stream that ends without payload.
        assert!(b.read_all(id, &mut got) && got.len() == len);
    }
}

#[test]
fn memory_is_free_as_soon_as_the_prefix_arrived_and_waits_for_the_next_megabyte() {
    // NGX-BUF-05, OSSL-TXP-08
    const LEN: usize = 1 << 20;
    let settings = Settings { stream_window: 4 << 20, conn_window: 4 << 20, ..Settings::default() };
    let (mut a, _) = pair(&settings);
    let id = a.s.open(Dir::Uni).unwrap();
    assert_eq!(a.write(id, &pattern(id, 0, LEN)), LEN);
    let full = a.pool.stats();
    let sent: Vec<Packet> = core::iter::from_fn(|| a.packet(1200, true)).collect();
    // All but the first arrived: nothing is free. Then the first: everything is.
    sent[1..].iter().for_each(|p| a.fate(p, Fate::Acked));
    assert_eq!(a.pool.stats(), full);
    a.fate(&sent[0], Fate::Acked);
    assert_eq!((a.pool.in_use(), a.pool.stats().free_bytes), (0, full.in_use_bytes));
    // In order, memory comes back bit by bit.
    assert_eq!(a.write(id, &pattern(id, LEN, LEN)), LEN);
    assert_eq!(a.pool.stats().allocated, full.allocated, "the free list was enough");
    let mut at = 0;
    for p in core::iter::from_fn(|| a.packet(1200, true)).collect::<Vec<_>>() {
        a.fate(&p, Fate::Acked);
        at += spans(&p)[0].1 as usize;
        assert!(a.pool.stats().in_use_bytes <= LEN - at + (64 << 10), "{at} bytes arrived");
    }
    assert_eq!((at, a.pool.in_use()), (LEN, 0));
}
