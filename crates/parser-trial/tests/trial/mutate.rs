//! Inputs by number: one of the corpus, changed in some places.

use courser_testing::Chance;

use crate::targets::Target;

/// Bytes of the longest input.
pub(crate) const LEN_MAX: usize = 4096;
/// Changes of one input at most.
const CHANGES_MAX: u64 = 6;
/// Values at which something begins or ends.
const EDGES: [u8; 12] = [0, 1, 0x1f, 0x20, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xfe, 0xff];

/// Makes input `n` of a target in `out`. The first ones are the corpus as it is.
pub(crate) fn input(target: &Target, n: u64, out: &mut Vec<u8>) {
    out.clear();
    let corpus = &target.corpus;
    let plain = usize::try_from(n).ok().and_then(|n| corpus.get(n));
    if let Some(plain) = plain {
        out.extend_from_slice(plain);
        return;
    }
    let name = target
        .name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, b| (sum ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut chance = Chance((name ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
    chance.below(2);
    let pick = |chance: &mut Chance| &corpus[below(chance, corpus.len())];
    out.extend_from_slice(pick(&mut chance));
    for _ in 0..=chance.below(CHANGES_MAX) {
        change(target, &mut chance, out);
        out.truncate(LEN_MAX);
    }
}

fn below(chance: &mut Chance, n: usize) -> usize {
    chance.below(n.max(1) as u64) as usize
}

/// A piece of some bytes, of at most so many.
fn piece<'a>(chance: &mut Chance, of: &'a [u8], most: usize) -> &'a [u8] {
    let from = below(chance, of.len());
    let len = (1 + below(chance, most)).min(of.len() - from);
    &of[from..from + len]
}

fn change(target: &Target, chance: &mut Chance, out: &mut Vec<u8>) {
    let at = below(chance, out.len());
    let byte = chance.below(256) as u8;
    match chance.below(12) {
        0 | 1 if !out.is_empty() => out[at] ^= 1 << (byte & 7),
        2 if !out.is_empty() => out[at] = EDGES[below(chance, EDGES.len())],
        3 if !out.is_empty() => out[at] = byte,
        // A length or a number that is one too large or too small.
        4 if !out.is_empty() => out[at] = if byte & 1 == 0 { out[at].wrapping_add(1) } else { out[at].wrapping_sub(1) },
        5 => out.insert(at, byte),
        6 if !out.is_empty() => {
            let end = (at + 1 + below(chance, 16)).min(out.len());
            out.drain(at..end);
        }
        7 => out.truncate(at),
        8 => {
            let other = &target.corpus[below(chance, target.corpus.len())];
            let other = piece(chance, other, 64);
            out.splice(at..at, other.iter().copied());
        }
        9 => {
            // The same thing again, sometimes often.
            let (from, times) = (below(chance, out.len()), 1 + below(chance, 4) * below(chance, 8));
            let end = (from + 1 + below(chance, 40)).min(out.len());
            for _ in 0..times {
                out.extend_from_within(from..end);
            }
        }
        _ => {
            if let Some(word) = target.words.get(below(chance, target.words.len())) {
                let end = if byte & 1 == 0 { at } else { (at + word.len()).min(out.len()) };
                out.splice(at..end, word.bytes());
            } else if let Some(spot) = out.get_mut(at) {
                *spot = byte;
            }
        }
    }
}
