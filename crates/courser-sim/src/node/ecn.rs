//! What a path does to the ECN field on its own account (marks by a queue are the queue's matter).

use crate::datagram::{CE, Datagram, NOT_ECT};
use crate::rng::Rng;

/// How a link treats the ECN field of datagrams that enter it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Ecn {
    /// Leaves it alone.
    #[default]
    Keep,
    /// Clears it: a bleaching router. A queue behind it cannot mark any more.
    Bleach,
    /// Drops datagrams that carry ECT or CE.
    DropCapable,
    /// Sets CE on ECT datagrams with this probability, whatever the queue looks like. 1.0 is a path that marks all.
    Mark(f64),
}

/// What became of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Passed as it was.
    Untouched,
    /// Its field was cleared.
    Bleached,
    /// It was marked CE.
    Marked,
    /// It must be dropped.
    Dropped,
}

impl Ecn {
    /// Applies the treatment to one datagram.
    pub fn apply(self, d: &mut Datagram, rng: &mut Rng) -> Outcome {
        match self {
            Self::Bleach if d.ecn != NOT_ECT => {
                d.ecn = NOT_ECT;
                Outcome::Bleached
            }
            Self::DropCapable if d.ecn != NOT_ECT => Outcome::Dropped,
            Self::Mark(p) if d.is_ect() && rng.chance(p) => {
                d.ecn = CE;
                Outcome::Marked
            }
            _ => Outcome::Untouched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::{ECT0, ECT1};

    #[test]
    fn each_treatment_meets_each_codepoint() {
        use Outcome::{Bleached, Dropped, Marked, Untouched};
        let table = [
            (Ecn::Keep, [Untouched, Untouched, Untouched, Untouched]),
            (Ecn::Bleach, [Untouched, Bleached, Bleached, Bleached]),
            (Ecn::DropCapable, [Untouched, Dropped, Dropped, Dropped]),
            (Ecn::Mark(1.0), [Untouched, Marked, Marked, Untouched]),
            (Ecn::Mark(0.0), [Untouched, Untouched, Untouched, Untouched]),
        ];
        let a = "127.0.0.1:1".parse().unwrap();
        for (how, want) in table {
            for (ecn, want) in [NOT_ECT, ECT1, ECT0, CE].into_iter().zip(want) {
                let mut d = Datagram { ecn, ..Datagram::new(a, a, vec![]) };
                assert_eq!(how.apply(&mut d, &mut Rng::new(1)), want, "{how:?} on {ecn}");
                match want {
                    Bleached => assert_eq!(d.ecn, NOT_ECT),
                    Marked => assert_eq!(d.ecn, CE),
                    Untouched | Dropped => assert_eq!(d.ecn, ecn),
                }
            }
        }
    }
}
