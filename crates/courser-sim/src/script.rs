//! Chosen treatment of single datagrams: rules that can be written down, and taps that can do anything.
//!
//! A [`Rule`] picks datagrams by number or time and says what happens to them; rules are part of a [`LinkConfig`] and work
//! in the relay too. A [`Tap`] is a closure on a [`crate::Link`]: an adversary on the path that reads, drops, delays,
//! changes and injects.
//!
//! Datagrams are numbered from 0 in the order in which their sender handed them to the link. Injected ones have no number
//! and pass neither rules nor taps, but all other nodes.
//!
//! ```
//! use courser_sim::script::Script;
//! // The client's first flight is lost, and the server's second datagram comes half a second late.
//! let (up, down) = Script::new().drop_up([0]).delay_down([1], 500_000).split();
//! assert_eq!((up.len(), down.len()), (1, 1));
//! ```

use crate::config::{Duplex, LinkConfig};
use crate::datagram::Datagram;
use crate::node::corrupt::Damage;

/// Which datagrams a rule means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Those with these numbers.
    Numbers(Vec<u64>),
    /// Those numbered `from..to`.
    Span {
        /// First number.
        from: u64,
        /// The number after the last.
        to: u64,
    },
    /// Those that enter the link in `from_us..to_us`.
    Time {
        /// Start of the time.
        from_us: u64,
        /// End of the time, not included.
        to_us: u64,
    },
    /// Those whose payload is at least this long.
    Longer(usize),
    /// All.
    All,
}

/// What happens to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// They vanish.
    Drop,
    /// They enter the link so many microseconds later; others overtake.
    Delay(u64),
    /// They are damaged.
    Damage(Damage),
    /// Their ECN field becomes this.
    SetEcn(u8),
    /// So many copies enter with them.
    Copies(u32),
}

/// A rule: pick and act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which datagrams.
    pub pick: Pick,
    /// What happens.
    pub act: Act,
}

impl Rule {
    /// A rule.
    #[must_use]
    pub const fn new(pick: Pick, act: Act) -> Self {
        Self { pick, act }
    }

    /// True if the rule means this datagram.
    #[must_use]
    pub fn picks(&self, number: u64, now_us: u64, d: &Datagram) -> bool {
        match &self.pick {
            Pick::Numbers(list) => list.contains(&number),
            Pick::Span { from, to } => (*from..*to).contains(&number),
            Pick::Time { from_us, to_us } => (*from_us..*to_us).contains(&now_us),
            Pick::Longer(len) => d.bytes.len() >= *len,
            Pick::All => true,
        }
    }
}

/// What a tap decides about a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, with whatever the tap changed.
    Pass,
    /// It vanishes.
    Drop,
    /// It goes on so many microseconds later.
    Delay(u64),
}

/// What a tap sees beside the datagram, and where it puts datagrams of its own.
#[derive(Debug)]
pub struct TapView<'a> {
    /// The virtual time in microseconds.
    pub now_us: u64,
    /// The datagram's number on this link.
    pub number: u64,
    /// Datagrams to inject into this link, each after so many microseconds.
    pub inject: &'a mut Vec<(u64, Datagram)>,
    /// Datagrams to send the other way: routed by their destination from the point where this link begins.
    pub back: &'a mut Vec<Datagram>,
}

/// An adversary on a link. It sees each datagram once, when the sender hands it to the link.
pub type Tap = Box<dyn FnMut(&mut TapView<'_>, &mut Datagram) -> Verdict + Send>;

/// Rules for the two directions of a path, written as a story.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    up: Vec<Rule>,
    down: Vec<Rule>,
}

impl Script {
    /// No rules.
    #[must_use]
    pub const fn new() -> Self {
        Self { up: Vec::new(), down: Vec::new() }
    }

    /// Adds a rule for the way up.
    #[must_use]
    pub fn up(mut self, pick: Pick, act: Act) -> Self {
        self.up.push(Rule::new(pick, act));
        self
    }

    /// Adds a rule for the way down.
    #[must_use]
    pub fn down(mut self, pick: Pick, act: Act) -> Self {
        self.down.push(Rule::new(pick, act));
        self
    }

    /// Drops datagrams on the way up by number.
    #[must_use]
    pub fn drop_up(self, numbers: impl IntoIterator<Item = u64>) -> Self {
        self.up(Pick::Numbers(numbers.into_iter().collect()), Act::Drop)
    }

    /// Drops datagrams on the way down by number.
    #[must_use]
    pub fn drop_down(self, numbers: impl IntoIterator<Item = u64>) -> Self {
        self.down(Pick::Numbers(numbers.into_iter().collect()), Act::Drop)
    }

    /// Delays datagrams on the way up by number.
    #[must_use]
    pub fn delay_up(self, numbers: impl IntoIterator<Item = u64>, us: u64) -> Self {
        self.up(Pick::Numbers(numbers.into_iter().collect()), Act::Delay(us))
    }

    /// Delays datagrams on the way down by number.
    #[must_use]
    pub fn delay_down(self, numbers: impl IntoIterator<Item = u64>, us: u64) -> Self {
        self.down(Pick::Numbers(numbers.into_iter().collect()), Act::Delay(us))
    }

    /// The rules of both directions.
    #[must_use]
    pub fn split(self) -> (Vec<Rule>, Vec<Rule>) {
        (self.up, self.down)
    }

    /// Appends the rules to a link's two directions.
    #[must_use]
    pub fn apply(self, mut to: Duplex) -> Duplex {
        let extend = |c: &mut LinkConfig, rules: Vec<Rule>| c.script.extend(rules);
        extend(&mut to.up, self.up);
        extend(&mut to.down, self.down);
        to
    }
}

/// All ways to lose up to `max` datagrams among the first `window` of both directions together: for tests that must pass
/// whatever part of a handshake is lost. Item by item: `(numbers lost up, numbers lost down)`.
///
/// ```
/// use courser_sim::script::loss_patterns;
/// // Nothing lost, one of four, two of four: 1 + 4 + 6.
/// assert_eq!(loss_patterns(2, 2).count(), 11);
/// ```
pub fn loss_patterns(window: u32, max: u32) -> impl Iterator<Item = (Vec<u64>, Vec<u64>)> {
    let window = window.min(16);
    (0u64..1 << (2 * window)).filter(move |bits| bits.count_ones() <= max).map(move |bits| {
        let picked = |from: u32| (0..u64::from(window)).filter(|i| bits >> (u64::from(from) + i) & 1 == 1).collect();
        (picked(0), picked(window))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pick_means_what_it_says() {
        let a = "127.0.0.1:1".parse().unwrap();
        let d = Datagram::new(a, a, vec![0; 100]);
        let hits = |pick: Pick| -> Vec<u64> {
            let rule = Rule::new(pick, Act::Drop);
            (0..6).filter(|&n| rule.picks(n, n * 10, &d)).collect()
        };
        assert_eq!(hits(Pick::Numbers(vec![4, 1])), [1, 4]);
        assert_eq!(hits(Pick::Span { from: 2, to: 4 }), [2, 3]);
        assert_eq!(hits(Pick::Time { from_us: 10, to_us: 30 }), [1, 2]);
        assert_eq!(hits(Pick::Longer(100)).len(), 6);
        assert_eq!(hits(Pick::Longer(101)).len(), 0);
        assert_eq!(hits(Pick::All).len(), 6);
    }

    #[test]
    fn a_script_keeps_the_directions_apart() {
        let d = Script::new().drop_up([0, 2]).drop_down([1]).delay_up([3], 7).apply(Duplex::default());
        assert_eq!(d.up.script.len(), 2);
        assert_eq!(d.up.script[1].act, Act::Delay(7));
        assert_eq!(d.down.script, [Rule::new(Pick::Numbers(vec![1]), Act::Drop)]);
    }

    #[test]
    fn loss_patterns_are_complete_and_distinct() {
        let mut all: Vec<_> = loss_patterns(3, 6).collect();
        assert_eq!(all.len(), 64);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 64);
        assert_eq!(all[0], (vec![], vec![]));
    }
}
