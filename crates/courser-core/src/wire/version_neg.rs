//! Which version to speak (RFC 9368, RFC 9369 section 4, RFC 9000 section 6).
//!
//! Versions 1 and 2 are compatible: a server may answer a first flight of one in the other. Everything else goes
//! through a Version Negotiation packet, which is not authentic; both ends therefore check the other's version
//! information during the handshake.

use crate::config::VersionInformation;
use crate::error::{PeerViolation, TransportCode};
use crate::ids::Version;

/// Whether a server can answer a first flight of version `from` in version `to` (RFC 9369 section 4.1).
#[must_use]
pub fn compatible(from: Version, to: Version) -> bool {
    //= rfc9368#2.2-1
    from == to || (from.is_supported() && to.is_supported())
}

/// A version that nobody speaks, to be listed among real ones so that peers keep ignoring unknown ones (RFC 9000
/// section 15).
#[must_use]
pub const fn greased(random: u32) -> Version {
    Version(random & 0xf0f0_f0f0 | 0x0a0a_0a0a)
}

/// Whether nobody ever speaks this version.
#[must_use]
pub const fn is_greased(version: Version) -> bool {
    version.0 & 0x0f0f_0f0f == 0x0a0a_0a0a
}

/// What an endpoint tells of its versions: `chosen`, and all of `versions`, best first. A client lists `chosen` in any
/// case.
#[must_use]
pub fn information(chosen: Version, versions: &[Version]) -> VersionInformation {
    let mut available = versions.to_vec();
    if !available.contains(&chosen) {
        //= rfc9368#3-2
        available.push(chosen);
    }
    VersionInformation { chosen, available }
}

const fn error(reason: &'static str, section: &'static str) -> PeerViolation {
    PeerViolation::new(TransportCode::VERSION_NEGOTIATION_ERROR, reason, section)
}

/// The version in which a server goes on: the best of its own, `ours`, that the client offers and that the first flight
/// in version `original` can be understood in.
///
/// # Errors
/// The client's version information contradicts its packets.
pub fn select(
    ours: &[Version],
    original: Version,
    client: Option<&VersionInformation>,
) -> Result<Version, PeerViolation> {
    let Some(client) = client else { return Ok(original) };
    if client.chosen != original {
        //= rfc9368#4-8, rfc9368#4-9, rfc9368#4-10
        return Err(error("the client's chosen version is not the one in use", "rfc9368#4"));
    }
    //= rfc9368#2.3-1
    let best = ours.iter().find(|v| client.available.contains(v) && compatible(original, **v));
    Ok(best.copied().unwrap_or(original))
}

/// What a client does about a Version Negotiation packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// It is forged or late: go on as before.
    Ignore,
    /// Start again in this version.
    Restart(Version),
    /// There is no common version: give up.
    GiveUp,
}

/// Judges a Version Negotiation packet that a client received before anything else. `restarted` tells whether this
/// attempt already is the answer to such a packet.
#[must_use]
pub fn react(
    ours: &[Version],
    original: Version,
    restarted: bool,
    offered: impl Iterator<Item = Version> + Clone,
) -> Reaction {
    //= rfc9368#4-1, rfc9368#4-2, rfc9000#6.2-3
    if restarted || offered.clone().any(|v| v == original) {
        return Reaction::Ignore;
    }
    //= rfc9368#2.1-2, rfc9368#2.1-3, rfc9368#2.1-4
    best(ours, offered).map_or(Reaction::GiveUp, Reaction::Restart)
}

/// The best of our versions among those that a server listed.
#[must_use]
pub fn best(ours: &[Version], offered: impl Iterator<Item = Version> + Clone) -> Option<Version> {
    ours.iter().copied().find(|v| offered.clone().any(|o| o == *v))
}

/// Checks what a server says of its versions. `ours` is what the client listed, `negotiated` the version of the
/// server's long headers, `restarted` whether the client acted on a Version Negotiation packet.
///
/// # Errors
/// Somebody tampered with the negotiation, or the server contradicts itself.
pub fn verify_server(
    ours: &[Version],
    negotiated: Version,
    restarted: bool,
    server: Option<&VersionInformation>,
) -> Result<(), PeerViolation> {
    let version_1 = VersionInformation { chosen: Version::V1, available: vec![Version::V1] };
    let server = match server {
        Some(server) => server,
        None if !restarted => return Ok(()),
        //= rfc9368#8-1
        None if negotiated == Version::V1 => &version_1,
        //= rfc9368#4-11, rfc9368#4-13
        None => return Err(error("the server does not tell its versions", "rfc9368#4")),
    };
    if !ours.contains(&server.chosen) {
        //= rfc9368#4-12
        return Err(error("the server chose a version that was not offered", "rfc9368#4"));
    }
    if server.chosen != negotiated {
        //= rfc9368#4-17
        return Err(error("the server's chosen version is not the one in use", "rfc9368#4"));
    }
    if !restarted {
        return Ok(());
    }
    //= rfc9368#4-14, rfc9368#4-15, rfc9368#4-16
    let would = ours.iter().find(|v| server.available.contains(v) || **v == negotiated);
    //= rfc8999#7-1
    //= rfc9368#8-2
    if server.available.is_empty() || would != Some(&negotiated) {
        return Err(error("the server speaks a better version than the one it was made to use", "rfc9368#4"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: Version = Version::V1;
    const V2: Version = Version::V2;
    const OTHER: Version = Version(0xff00_001d);

    fn info(chosen: Version, available: &[Version]) -> VersionInformation {
        VersionInformation { chosen, available: available.to_vec() }
    }

    #[test]
    fn versions_1_and_2_are_compatible_and_others_only_with_themselves() {
        //= rfc9368#2.2-1 type=test
        assert!(compatible(V1, V2) && compatible(V2, V1) && compatible(OTHER, OTHER));
        assert!(!compatible(V1, OTHER) && !compatible(OTHER, V2));
    }

    #[test]
    fn greased_versions_are_never_spoken() {
        for random in [0, u32::MAX, 0x1234_5678] {
            let v = greased(random);
            assert!(is_greased(v) && !v.is_supported() && v != Version::NEGOTIATION);
        }
        assert!(!is_greased(V1) && !is_greased(V2));
    }

    #[test]
    fn the_chosen_version_is_always_listed() {
        //= rfc9368#3-2 type=test
        assert_eq!(information(V1, &[V2]), info(V1, &[V2, V1]));
        assert_eq!(information(V1, &[V2, V1]), info(V1, &[V2, V1]));
    }

    #[test]
    fn a_server_takes_the_best_version_that_the_client_offers() {
        //= rfc9368#2.3-1 type=test
        assert_eq!(select(&[V2, V1], V1, Some(&info(V1, &[V1, V2]))), Ok(V2));
        assert_eq!(select(&[V1, V2], V1, Some(&info(V1, &[V2, V1]))), Ok(V1));
        assert_eq!(select(&[V2, V1], V1, Some(&info(V1, &[V1]))), Ok(V1));
        assert_eq!(select(&[V2, V1], V1, Some(&info(V1, &[V1, OTHER]))), Ok(V1));
        assert_eq!(select(&[V2, V1], V1, None), Ok(V1));
        // A first flight cannot be understood in a version that is not compatible.
        assert_eq!(select(&[OTHER, V1], V1, Some(&info(V1, &[OTHER, V1]))), Ok(V1));
    }

    #[test]
    fn a_server_refuses_a_client_that_says_it_speaks_something_else() {
        //= rfc9368#4-8, rfc9368#4-9, rfc9368#4-10 type=test
        let refused = select(&[V2, V1], V1, Some(&info(V2, &[V2, V1]))).unwrap_err();
        assert_eq!(refused.code, TransportCode::VERSION_NEGOTIATION_ERROR);
    }

    #[test]
    fn a_client_ignores_a_list_with_the_version_it_tried() {
        //= rfc9368#4-1, rfc9000#6.2-3 type=test
        assert_eq!(react(&[V2, V1], V1, false, [V2, V1].into_iter()), Reaction::Ignore);
    }

    #[test]
    fn a_client_reacts_once() {
        //= rfc9368#4-2 type=test
        assert_eq!(react(&[V2, V1], V1, true, [V2].into_iter()), Reaction::Ignore);
    }

    #[test]
    fn a_client_restarts_in_its_best_version_or_gives_up() {
        //= rfc9368#2.1-2, rfc9368#2.1-3, rfc9368#2.1-4 type=test
        assert_eq!(react(&[OTHER, V2, V1], V1, false, [greased(7), V2].into_iter()), Reaction::Restart(V2));
        assert_eq!(react(&[V1], V1, false, [V2, OTHER].into_iter()), Reaction::GiveUp);
    }

    #[test]
    fn a_client_checks_what_the_server_tells() {
        let code = |r: Result<(), PeerViolation>| r.err().map(|v| v.code);
        let bad = Some(TransportCode::VERSION_NEGOTIATION_ERROR);
        let ours = [V2, V1];
        assert_eq!(code(verify_server(&ours, V2, false, Some(&info(V2, &[V2, V1])))), None);
        assert_eq!(code(verify_server(&ours, V1, false, None)), None);
        //= rfc9368#4-12 type=test
        assert_eq!(code(verify_server(&ours, OTHER, false, Some(&info(OTHER, &[])))), bad);
        //= rfc9368#4-17 type=test
        assert_eq!(code(verify_server(&ours, V1, false, Some(&info(V2, &[V2])))), bad);
    }

    #[test]
    fn a_forged_version_negotiation_packet_is_found_out() {
        let ours = [V2, V1];
        let check = |negotiated, server: Option<&VersionInformation>| verify_server(&ours, negotiated, true, server);
        //= rfc9368#4-14, rfc9368#4-15 type=test
        assert!(check(V1, Some(&info(V1, &[V1, V2]))).is_err());
        assert!(check(V1, Some(&info(V1, &[V1, OTHER]))).is_ok());
        // The version in use counts as available.
        assert!(check(V1, Some(&info(V1, &[OTHER]))).is_ok());
        //= rfc9368#4-16 type=test
        assert!(check(V1, Some(&info(V1, &[]))).is_err());
        //= rfc9368#4-11, rfc9368#4-13 type=test
        assert!(check(V2, None).is_err());
        //= rfc9368#8-1 type=test
        assert!(check(V1, None).is_ok());
    }
}
