//! Who owns an address, and which link leads there: shortest paths by number of links, found when first asked for.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// The shape of the network. Nodes and links are numbers.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    owners: HashMap<IpAddr, u32>,
    /// For each node the links that leave it, with the nodes they lead to.
    out: Vec<Vec<(u32, u32)>>,
    /// Links by which a node sends what comes from or goes to an address.
    chosen: HashMap<(u32, IpAddr), u32>,
    /// Answers so far; emptied whenever the shape changes.
    known: HashMap<(u32, u32), Option<u32>>,
}

impl Routes {
    pub(crate) fn add_node(&mut self) -> u32 {
        self.out.push(Vec::new());
        self.known.clear();
        (self.out.len() - 1) as u32
    }

    pub(crate) fn add_link(&mut self, from: u32, to: u32, link: u32) {
        self.out[from as usize].push((link, to));
        self.known.clear();
    }

    /// Gives an address to a node; false if it has an owner already.
    pub(crate) fn own(&mut self, ip: IpAddr, node: u32) -> bool {
        self.known.clear();
        *self.owners.entry(ip).or_insert(node) == node
    }

    pub(crate) fn owner(&self, ip: IpAddr) -> Option<u32> {
        self.owners.get(&ip).copied()
    }

    /// What a node sends from or to an address leaves by that link from now on.
    pub(crate) fn choose(&mut self, node: u32, ip: IpAddr, link: u32) {
        self.chosen.insert((node, ip), link);
    }

    /// The link that was chosen for one of these addresses, of which the source counts first.
    pub(crate) fn chosen(&self, node: u32, source: IpAddr, destination: IpAddr) -> Option<u32> {
        if self.chosen.is_empty() {
            return None;
        }
        [source, destination].iter().find_map(|ip| self.chosen.get(&(node, *ip)).copied())
    }

    /// The link out of `from` on a shortest way to the node `to`.
    pub(crate) fn next_link(&mut self, from: u32, to: u32) -> Option<u32> {
        if let Some(&known) = self.known.get(&(from, to)) {
            return known;
        }
        let found = self.search(from, to);
        self.known.insert((from, to), found);
        found
    }

    fn search(&self, from: u32, to: u32) -> Option<u32> {
        let mut seen = vec![false; self.out.len()];
        seen[from as usize] = true;
        // Each entry: a node that was reached, and the link by which its way left `from`.
        let mut reached = VecDeque::new();
        for &(link, next) in &self.out[from as usize] {
            if !seen[next as usize] {
                seen[next as usize] = true;
                reached.push_back((next, link));
            }
        }
        while let Some((node, first)) = reached.pop_front() {
            if node == to {
                return Some(first);
            }
            for &(_, next) in &self.out[node as usize] {
                if !seen[next as usize] {
                    seen[next as usize] = true;
                    reached.push_back((next, first));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_way_wins_and_dead_ends_are_known() {
        let mut r = Routes::default();
        let n: Vec<u32> = (0..5).map(|_| r.add_node()).collect();
        // 0 → 1 → 2 → 3 and 0 → 4 → 3; nothing leads back.
        for (link, (from, to)) in [(0, 1), (1, 2), (2, 3), (0, 4), (4, 3)].into_iter().enumerate() {
            r.add_link(n[from], n[to], link as u32);
        }
        assert_eq!(r.next_link(0, 3), Some(3));
        assert_eq!(r.next_link(0, 2), Some(0));
        assert_eq!(r.next_link(3, 0), None);
        r.add_link(3, 0, 9);
        assert_eq!(r.next_link(3, 0), Some(9), "a new link clears what was known");
    }

    #[test]
    fn an_address_has_one_owner() {
        let mut r = Routes::default();
        let (a, b) = (r.add_node(), r.add_node());
        let ip = "192.0.2.1".parse().unwrap();
        assert!(r.own(ip, a) && r.own(ip, a) && !r.own(ip, b));
        assert_eq!(r.owner(ip), Some(a));
    }
}
