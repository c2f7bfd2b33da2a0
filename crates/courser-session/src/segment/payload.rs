//! Payloads that are no bytes of the user's, as bytes.
//!
//! A place: version of the address (4 or 6), address, port (2), for version 6 flow label (4) and scope (4), profile (4), name
//! (the rest, UTF-8). Figures: eight numbers of 8 bytes. Two ends: twice version, 16 bytes of address (4 and zeros for version
//! 4), port (2), flow label (4) and scope (4). All numbers are little-endian.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

use crate::msg::{Addresses, Endpoint, SessionStats};

/// Bytes of a server's name at most: more than any has.
const NAME_MAX: usize = 1024;

pub(super) fn of_endpoint(endpoint: &Endpoint) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + endpoint.server_name.len());
    match endpoint.address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(4);
            bytes.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(6);
            bytes.extend(ip.octets());
        }
    }
    bytes.extend(endpoint.address.port().to_le_bytes());
    if let SocketAddr::V6(address) = endpoint.address {
        bytes.extend(address.flowinfo().to_le_bytes());
        bytes.extend(address.scope_id().to_le_bytes());
    }
    bytes.extend(endpoint.profile.to_le_bytes());
    // A name that is too long for the transport stays so when it is cut here.
    let mut end = endpoint.server_name.len().min(NAME_MAX);
    while !endpoint.server_name.is_char_boundary(end) {
        end -= 1;
    }
    bytes.extend_from_slice(endpoint.server_name.as_bytes().get(..end).unwrap_or_default());
    bytes
}

/// Takes the next bytes off the front.
fn next<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

pub(super) fn to_endpoint(mut bytes: &[u8]) -> Option<Endpoint> {
    let rest = &mut bytes;
    let [version] = next(rest)?;
    let address = match version {
        4 => SocketAddr::new(next::<4>(rest)?.into(), u16::from_le_bytes(next(rest)?)),
        6 => {
            let (ip, port) = (next::<16>(rest)?.into(), u16::from_le_bytes(next(rest)?));
            SocketAddrV6::new(ip, port, u32::from_le_bytes(next(rest)?), u32::from_le_bytes(next(rest)?)).into()
        }
        _ => return None,
    };
    let profile = u32::from_le_bytes(next(rest)?);
    if rest.len() > NAME_MAX {
        return None;
    }
    Some(Endpoint { address, server_name: core::str::from_utf8(rest).ok()?.to_owned(), profile })
}

/// Bytes of two ends.
pub(super) const ADDRESSES: usize = 2 * END;
const END: usize = 27;

fn of_end(address: SocketAddr) -> [u8; END] {
    let mut bytes = [0; END];
    match address {
        SocketAddr::V4(address) => {
            bytes[0] = 4;
            bytes[1..5].copy_from_slice(&address.ip().octets());
        }
        SocketAddr::V6(address) => {
            bytes[0] = 6;
            bytes[1..17].copy_from_slice(&address.ip().octets());
            bytes[19..23].copy_from_slice(&address.flowinfo().to_le_bytes());
            bytes[23..27].copy_from_slice(&address.scope_id().to_le_bytes());
        }
    }
    bytes[17..19].copy_from_slice(&address.port().to_le_bytes());
    bytes
}

fn to_end(rest: &mut &[u8]) -> Option<SocketAddr> {
    let [version] = next(rest)?;
    let (ip, port) = (next::<16>(rest)?, u16::from_le_bytes(next(rest)?));
    let (flow, scope) = (u32::from_le_bytes(next(rest)?), u32::from_le_bytes(next(rest)?));
    match (version, ip) {
        (4, [a, b, c, d, rest @ ..]) if (rest, flow, scope) == ([0; 12], 0, 0) => {
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
        }
        (6, ip) => Some(SocketAddrV6::new(ip.into(), port, flow, scope).into()),
        _ => None,
    }
}

pub(super) fn of_addresses(ends: &Addresses) -> [u8; ADDRESSES] {
    let mut bytes = [0; ADDRESSES];
    bytes[..END].copy_from_slice(&of_end(ends.local));
    bytes[END..].copy_from_slice(&of_end(ends.peer));
    bytes
}

pub(super) fn to_addresses(mut bytes: &[u8]) -> Option<Addresses> {
    let rest = &mut bytes;
    let (local, peer) = (to_end(rest)?, to_end(rest)?);
    rest.is_empty().then_some(Addresses { local, peer })
}

pub(super) fn of_stats(stats: &SessionStats) -> Vec<u8> {
    let SessionStats {
        written_bytes,
        read_bytes,
        datagrams_sent,
        datagrams_received,
        packets_lost,
        rtt_us,
        congestion_window_bytes,
        children,
    } = *stats;
    let figures = [written_bytes, read_bytes, datagrams_sent, datagrams_received, packets_lost, rtt_us];
    figures.into_iter().chain([congestion_window_bytes, children]).flat_map(u64::to_le_bytes).collect()
}

pub(super) fn to_stats(bytes: &[u8]) -> Option<SessionStats> {
    let (figures, []) = bytes.as_chunks::<8>() else { return None };
    let &[
        written_bytes,
        read_bytes,
        datagrams_sent,
        datagrams_received,
        packets_lost,
        rtt_us,
        congestion_window_bytes,
        children,
    ] = <&[[u8; 8]; 8]>::try_from(figures).ok()?;
    let number = u64::from_le_bytes;
    Some(SessionStats {
        written_bytes: number(written_bytes),
        read_bytes: number(read_bytes),
        datagrams_sent: number(datagrams_sent),
        datagrams_received: number(datagrams_received),
        packets_lost: number(packets_lost),
        rtt_us: number(rtt_us),
        congestion_window_bytes: number(congestion_window_bytes),
        children: number(children),
    })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_and_figures_come_back_as_they_were(
            ip: std::net::IpAddr, port: u16, extra: (u32, u32), profile: u32, name in "\\PC{0,60}", stats: [u64; 8],
        ) {
            let mut address = SocketAddr::new(ip, port);
            if let SocketAddr::V6(address) = &mut address {
                address.set_flowinfo(extra.0);
                address.set_scope_id(extra.1);
            }
            let endpoint = Endpoint { address, server_name: name, profile };
            let ends = Addresses { local: address, peer: SocketAddr::new(ip, profile as u16) };
            prop_assert_eq!(to_addresses(&of_addresses(&ends)), Some(ends));
            prop_assert_eq!(to_endpoint(&of_endpoint(&endpoint)), Some(endpoint));
            let bytes: Vec<u8> = stats.into_iter().flat_map(u64::to_le_bytes).collect();
            prop_assert_eq!(of_stats(&to_stats(&bytes).unwrap()), bytes);
        }

        #[test]
        fn whatever_comes_is_two_ends_or_none(bytes in prop::collection::vec(any::<u8>(), ADDRESSES - 1..ADDRESSES + 2)) {
            let mut bytes = bytes;
            (bytes[0], bytes[END]) = (4 + bytes[0] % 4, 6);
            if let Some(ends) = to_addresses(&bytes) {
                prop_assert_eq!(&of_addresses(&ends)[..], &bytes[..]);
            }
        }

        #[test]
        fn whatever_comes_is_a_place_or_none(bytes in prop::collection::vec(any::<u8>(), 0..40), version in 3u8..8) {
            let bytes: Vec<u8> = std::iter::once(version).chain(bytes).collect();
            if let Some(endpoint) = to_endpoint(&bytes) {
                prop_assert_eq!(of_endpoint(&endpoint), bytes);
            }
        }
    }

    #[test]
    fn names_that_nobody_has_are_cut_or_refused() {
        let address = "127.0.0.1:1".parse().unwrap();
        let long = Endpoint { address, server_name: "ä".repeat(2000), profile: 0 };
        let cut = to_endpoint(&of_endpoint(&long)).unwrap();
        assert!(cut.server_name.len() > 1000 && long.server_name.starts_with(&cut.server_name));
        let mut bytes = of_endpoint(&Endpoint { server_name: String::new(), ..long });
        bytes.extend([b'a'; NAME_MAX + 1]);
        assert_eq!(to_endpoint(&bytes), None);
        assert_eq!(to_stats(&[0; 63]), None);
        assert_eq!(to_stats(&[0; 72]), None);
    }
}
