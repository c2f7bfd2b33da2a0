//! The numbers that an application's workers have in its handles: 256, given out in runs, used again without repeating a
//! handle.

use courser::session::Generations;

/// Which numbers are in use, and what each one's earlier workers left.
#[derive(Debug)]
pub(crate) struct Numbers {
    used: [bool; 256],
    generations: Vec<Generations>,
    /// Where the next search begins, so that numbers rest before they are used again.
    next: usize,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { used: [false; 256], generations: (0..256).map(|_| Generations::default()).collect(), next: 0 }
    }
}

impl Numbers {
    /// `count` numbers in a row, with what their earlier workers left; `None` when there are not so many.
    pub(crate) fn take(&mut self, count: usize) -> Option<(u8, Vec<Generations>)> {
        let free = |first: usize| {
            let run = first..first + count;
            run.end <= 256 && run.clone().all(|n| !self.used[n] && !self.generations[n].are_used_up())
        };
        let first = (self.next..256).chain(0..self.next).find(|first| free(*first))?;
        let run = first..first + count;
        self.used[run.clone()].fill(true);
        self.next = run.end % 256;
        Some((u8::try_from(first).ok()?, self.generations[run].to_vec()))
    }

    /// The workers with these numbers are gone.
    pub(crate) fn give_back(&mut self, first: u8, count: usize) {
        let first = usize::from(first);
        self.used[first..(first + count).min(256)].fill(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_out_in_runs_and_rest_before_they_return() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.take(2).unwrap().0, 0);
        assert_eq!(numbers.take(200).unwrap().0, 2);
        assert!(numbers.take(55).is_none(), "54 are left");
        numbers.give_back(0, 2);
        assert_eq!(numbers.take(54).unwrap().0, 202, "the freed ones come last");
        assert_eq!(numbers.take(2).unwrap().0, 0);
        assert!(numbers.take(1).is_none());
    }
}
