//! What HTTPS records say about a host (RFC 9460): other names and ports where it answers, over which protocols, and
//! addresses that save a question.
//!
//! Records come from whoever answers for a name, unsigned: they say where to knock, never who is there. The certificate
//! has to be the origin's everywhere.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use hickory_resolver::proto::rr::rdata::svcb::{SVCB, SvcParamKey, SvcParamValue};
use hickory_resolver::proto::rr::{Name, RData, Record};

use crate::alt_svc::Origin;

/// Records of one answer that are looked at.
const RECORDS_MAX: usize = 32;
/// Offers that are kept.
const OFFERS_MAX: usize = 8;
/// Addresses of one offer that are kept.
const HINTS_MAX: usize = 8;
/// Characters of a name (RFC 1035 section 2.3.4).
const NAME_MAX: usize = 253;

/// Where an origin answers too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Another host; none: the origin's.
    pub host: Option<String>,
    /// The port there.
    pub port: u16,
    /// Whether HTTP/3 is spoken there.
    pub h3: bool,
    /// Whether HTTP/2 or HTTP/1.1 is.
    pub tcp: bool,
    /// Its addresses as the record has them; where there are any, nobody has to ask for them first.
    pub hints: Vec<IpAddr>,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Ask this name instead.
    Alias(String),
    /// These, the preferred ones first; none, when nothing in the answer can be used.
    Offers(Vec<Offer>),
}

/// Reads the answers to a question for an origin.
#[must_use]
pub fn read(answers: &[Record], origin: &Origin) -> Reply {
    let of_https = |r: &Record| match &r.data {
        RData::HTTPS(https) => Some((r.name.clone(), https.0.clone())),
        _ => None,
    };
    let records: Vec<(Name, SVCB)> = answers.iter().filter_map(of_https).take(RECORDS_MAX).collect();
    // One alias silences everything beside it (section 2.4.1). To nowhere means that there is nothing (section 2.5.1).
    if let Some((_, alias)) = records.iter().find(|(_, r)| r.svc_priority == 0) {
        return host(&alias.target_name).map_or(Reply::Offers(Vec::new()), Reply::Alias);
    }
    let order = RandomState::new();
    let mut found = Vec::new();
    for (n, (owner, record)) in records.iter().enumerate() {
        match service(owner, record, origin) {
            // What is malformed spoils the whole set (section 2.2).
            Err(Malformed) => return Reply::Offers(Vec::new()),
            // Equals share the load (section 2.4.1).
            Ok(offer) => found.extend(offer.map(|o| ((record.svc_priority, order.hash_one(n)), o))),
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    Reply::Offers(found.into_iter().map(|(_, offer)| offer).take(OFFERS_MAX).collect())
}

struct Malformed;

/// One record; none when it asks for something that this client does not know.
fn service(owner: &Name, record: &SVCB, origin: &Origin) -> Result<Option<Offer>, Malformed> {
    let mut offer = Offer { port: origin.port, ..Offer::default() };
    let (mut known, mut alpn, mut default_alpn) = (true, None, true);
    for (_, value) in &record.svc_params {
        match value {
            SvcParamValue::Mandatory(keys) => known &= mandatory(&keys.0, record)?,
            SvcParamValue::Alpn(names) => alpn = Some(&names.0),
            SvcParamValue::NoDefaultAlpn => default_alpn = false,
            SvcParamValue::Port(port) => offer.port = *port,
            SvcParamValue::Ipv4Hint(list) => offer.hints.extend(list.0.iter().map(|a| IpAddr::V4(a.0))),
            SvcParamValue::Ipv6Hint(list) => offer.hints.extend(list.0.iter().map(|a| IpAddr::V6(a.0))),
            _ => {}
        }
    }
    if alpn.is_none() && !default_alpn {
        return Err(Malformed);
    }
    let speaks = |name: &str| alpn.is_some_and(|names| names.iter().any(|n| n == name));
    // HTTP/1.1 is what everybody speaks who does not say otherwise (section 9.2).
    (offer.h3, offer.tcp) = (speaks("h3"), default_alpn || speaks("h2") || speaks("http/1.1"));
    offer.hints.truncate(HINTS_MAX);
    let target = if record.target_name.is_root() { owner } else { &record.target_name };
    let Some(target) = host(target) else { return Ok(None) };
    offer.host = (target != origin.host).then_some(target);
    Ok((known && offer.port != 0 && (offer.h3 || offer.tcp)).then_some(offer))
}

/// Whether everything is known here that has to be (section 8).
fn mandatory(keys: &[SvcParamKey], record: &SVCB) -> Result<bool, Malformed> {
    let there = |key: &SvcParamKey| record.svc_params.iter().any(|(k, _)| k == key);
    if keys.iter().any(|k| *k == SvcParamKey::Mandatory || !there(k)) {
        return Err(Malformed);
    }
    let known = |key: &SvcParamKey| {
        use SvcParamKey::{Alpn, Ipv4Hint, Ipv6Hint, NoDefaultAlpn, Port};
        matches!(key, Alpn | NoDefaultAlpn | Port | Ipv4Hint | Ipv6Hint)
    };
    Ok(keys.iter().all(known))
}

/// A name as hosts are written; none when it is none.
fn host(name: &Name) -> Option<String> {
    let text = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    (plain && !text.is_empty() && text.len() <= NAME_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::HTTPS;
    use hickory_resolver::proto::rr::rdata::a::A;
    use hickory_resolver::proto::rr::rdata::svcb::{Alpn, IpHint, Mandatory, Unknown};

    use super::*;

    fn origin() -> Origin {
        Origin { host: "a.test".into(), port: 443 }
    }

    fn record(priority: u16, target: &str, values: Vec<(SvcParamKey, SvcParamValue)>) -> Record {
        let target = Name::from_ascii(target).unwrap();
        let data = RData::HTTPS(HTTPS(SVCB::new(priority, target, values)));
        Record::from_rdata(Name::from_ascii("a.test.").unwrap(), 60, data)
    }

    fn alpn(names: &[&str]) -> (SvcParamKey, SvcParamValue) {
        (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(names.iter().map(|n| (*n).to_owned()).collect())))
    }

    fn port(port: u16) -> (SvcParamKey, SvcParamValue) {
        (SvcParamKey::Port, SvcParamValue::Port(port))
    }

    fn must(keys: &[SvcParamKey]) -> (SvcParamKey, SvcParamValue) {
        (SvcParamKey::Mandatory, SvcParamValue::Mandatory(Mandatory(keys.to_vec())))
    }

    fn offers(records: &[Record]) -> Vec<Offer> {
        match read(records, &origin()) {
            Reply::Offers(list) => list,
            Reply::Alias(to) => panic!("an alias to {to}"),
        }
    }

    #[test]
    fn protocols_ports_targets_and_hints_are_read() {
        let hints = (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A::new(192, 0, 2, 1)])));
        let none = (SvcParamKey::NoDefaultAlpn, SvcParamValue::NoDefaultAlpn);
        for (values, target, expected) in [
            (vec![], ".", Offer { port: 443, tcp: true, ..Offer::default() }),
            (vec![alpn(&["h3", "h2"])], ".", Offer { port: 443, h3: true, tcp: true, ..Offer::default() }),
            (
                vec![alpn(&["h3"]), none, port(8443)],
                "B.test.",
                Offer { host: Some("b.test".into()), port: 8443, h3: true, ..Offer::default() },
            ),
            (
                vec![alpn(&["h3"]), hints],
                "a.test.",
                Offer { port: 443, h3: true, tcp: true, hints: vec![[192, 0, 2, 1].into()], ..Offer::default() },
            ),
        ] {
            assert_eq!(offers(&[record(1, target, values)]), [expected], "{target}");
        }
    }

    #[test]
    fn preferred_ones_come_first_and_lists_are_bounded() {
        let many: Vec<_> = (1..=40).rev().map(|n| record(n, ".", vec![alpn(&["h3"]), port(n)])).collect();
        let ports: Vec<_> = offers(&many).iter().map(|o| o.port).collect();
        assert_eq!(ports, (9..=16).collect::<Vec<u16>>(), "of the 32 that are looked at, the first 8");
        let equals: Vec<_> = (1..=8).map(|n| record(1, ".", vec![port(n)])).collect();
        let firsts: std::collections::HashSet<u16> = (0..200).map(|_| offers(&equals)[0].port).collect();
        assert!(firsts.len() > 1, "equals take turns: {firsts:?}");
    }

    #[test]
    fn an_alias_silences_the_rest() {
        let records = [record(1, ".", vec![alpn(&["h3"])]), record(0, "Pool.test.", vec![])];
        assert_eq!(read(&records, &origin()), Reply::Alias("pool.test".into()));
        assert_eq!(read(&[record(0, ".", vec![])], &origin()), Reply::Offers(vec![]));
    }

    #[test]
    fn what_has_to_be_understood_and_is_not_is_left_out() {
        let strange = (SvcParamKey::Unknown(9999), SvcParamValue::Unknown(Unknown(vec![1])));
        let optional = record(1, ".", vec![alpn(&["h3"]), strange.clone()]);
        assert_eq!(offers(std::slice::from_ref(&optional)).len(), 1);
        let needed = record(1, ".", vec![must(&[SvcParamKey::Unknown(9999)]), strange]);
        assert_eq!(offers(&[needed, optional]).len(), 1);
        assert!(offers(&[record(1, ".", vec![port(0)])]).is_empty());
        let odd = Name::from_labels([&b"x y"[..], b"test"]).unwrap();
        assert_eq!((host(&odd), host(&Name::root())), (None, None));
    }

    #[test]
    fn what_is_malformed_spoils_the_set() {
        let good = record(1, ".", vec![alpn(&["h3"])]);
        let none = (SvcParamKey::NoDefaultAlpn, SvcParamValue::NoDefaultAlpn);
        for bad in [vec![none], vec![must(&[SvcParamKey::Port])], vec![must(&[SvcParamKey::Mandatory])]] {
            assert!(offers(&[good.clone(), record(2, ".", bad.clone())]).is_empty(), "{bad:?}");
        }
    }
}
