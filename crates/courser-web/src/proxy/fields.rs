//! Fields between two connections: what belongs to one of them stays there, and the origin is told who asks.

use std::net::IpAddr;

use http::Version;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;

use crate::app::Peer;
use crate::config;

/// Fields of a connection, not of a message (RFC 9110 section 7.6.1).
const OF_A_CONNECTION: [&str; 7] =
    ["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "upgrade"];
/// Says that a request may be a replay (RFC 8470 section 5.1). It belongs to the message whatever `Connection` says.
pub const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What only who is believed may say of a client.
const OF_A_CLIENT: [HeaderName; 4] = [FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO];

/// Takes the fields of a connection away.
pub fn strip(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != EARLY_DATA)
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
    headers.remove(header::TRANSFER_ENCODING);
}

/// Turns the fields of a client's request into those of a request to the origin.
pub struct Outward<'a> {
    /// What the operator wants.
    pub config: &'a config::Proxy,
    /// Who asks.
    pub peer: Peer,
    /// What this proxy calls itself.
    pub name: &'a str,
}

impl Outward<'_> {
    /// Whether the request has come by here before.
    #[must_use]
    pub fn loops(&self, headers: &HeaderMap) -> bool {
        let mut vias = headers.get_all(header::VIA).iter().filter_map(|via| via.to_str().ok());
        vias.any(|via| via.split(',').any(|hop| hop.split_whitespace().nth(1) == Some(self.name)))
    }

    /// Changes them; `host` is what the client asked.
    pub fn apply(&self, headers: &mut HeaderMap, host: Option<&Authority>, version: Version) {
        let trailers = headers
            .get_all(header::TE)
            .iter()
            .filter_map(|te| te.to_str().ok())
            .any(|te| te.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")));
        strip(headers);
        // We answer that by ourselves, when the body is wanted.
        headers.remove(header::EXPECT);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            // HTTP/2 knows no fields of a connection.
            if !self.config.http2 {
                headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
            }
        }
        self.forward(headers, host);
        let received = match version {
            Version::HTTP_3 => "3",
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        append(headers, header::VIA, &format!("{received} {}", self.name), ", ");
        let host = host.filter(|_| self.config.preserve_host);
        match host.and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
            Some(host) => drop(headers.insert(header::HOST, host)),
            // The client that speaks to the origin takes it from the origin's address.
            None => drop(headers.remove(header::HOST)),
        }
        // Cookies come in several fields since HTTP/2; before, they are one (RFC 9114 section 4.2.1).
        join_cookies(headers);
    }

    /// Says who asks, and how, in both usual ways.
    fn forward(&self, headers: &mut HeaderMap, host: Option<&Authority>) {
        if !self.config.trust_forwarded {
            for name in OF_A_CLIENT {
                headers.remove(name);
            }
        }
        let ip = self.peer.remote.ip().to_canonical();
        let proto = if self.peer.is_secure { "https" } else { "http" };
        let node = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("\"[{ip}]\""),
        };
        let mut said = format!("for={node};proto={proto}");
        if let Some(host) = host {
            // Quoted, as it may have a port; a host has neither quotes nor backslashes.
            said.push_str(&format!(";host=\"{host}\""));
        }
        append(headers, FORWARDED, &said, ", ");
        append(headers, FORWARDED_FOR, &ip.to_string(), ", ");
        // These two have no list: who was first is believed, when anybody is.
        for (name, value) in [(FORWARDED_PROTO, Some(proto)), (FORWARDED_HOST, host.map(Authority::as_str))] {
            if let (Entry::Vacant(place), Some(Ok(value))) = (headers.entry(name), value.map(HeaderValue::from_str)) {
                place.insert(value);
            }
        }
    }
}

/// Adds to the end of a list.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &str, between: &str) {
    let mut list: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    list.push(value.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&list.join(between.as_bytes())) {
        headers.insert(name, value);
    }
}

fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(mut joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(config: &config::Proxy, fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let peer = Peer { remote: "[2001:db8::1]:5".parse().unwrap(), port: 443, is_secure: true };
        let host: Authority = "site.example:8443".parse().unwrap();
        let outward = Outward { config, peer, name: "courser-7" };
        outward.apply(&mut headers, Some(&host), Version::HTTP_3);
        headers
    }

    #[test]
    fn fields_of_the_connection_stay_on_it() {
        let fields = [
            ("connection", "close, X-Mine"),
            ("connection", "keep-alive"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "secret"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("x-other", "stays"),
            ("trailer", "x-sum"),
        ];
        let headers = apply(&config::Proxy::default(), &fields);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let ours = ["forwarded", "trailer", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
        assert_eq!(names, [&ours[..], &["x-other"]].concat());
    }

    #[test]
    fn the_origin_is_told_who_asks_and_only_by_us() {
        let lies = [("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1"), ("x-forwarded-proto", "ftp")];
        let headers = apply(&config::Proxy::default(), &lies);
        assert_eq!(headers["forwarded"], "for=\"[2001:db8::1]\";proto=https;host=\"site.example:8443\"");
        assert_eq!(headers["x-forwarded-for"], "2001:db8::1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "site.example:8443");
        assert_eq!(headers["via"], "3 courser-7");
        assert!(!headers.contains_key("host"));

        let trusting = config::Proxy { trust_forwarded: true, preserve_host: true, ..config::Proxy::default() };
        let headers = apply(&trusting, &lies);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 2001:db8::1");
        assert!(headers["forwarded"].to_str().unwrap().starts_with("for=10.0.0.1, for=\"[2001"));
        assert_eq!(headers["x-forwarded-proto"], "ftp");
        assert_eq!(headers["host"], "site.example:8443");
    }

    #[test]
    fn trailers_cookies_and_loops() {
        let fields =
            [("te", "gzip, Trailers"), ("cookie", "a=1"), ("cookie", "b=2"), ("via", "1.1 other, 2 courser-7")];
        let headers = apply(&config::Proxy::default(), &fields);
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["connection"], "te");
        assert_eq!(headers["cookie"], "a=1; b=2");
        assert_eq!(headers["via"], "1.1 other, 2 courser-7, 3 courser-7");
        let headers = apply(&config::Proxy { http2: true, ..config::Proxy::default() }, &fields);
        assert!(headers.contains_key("te") && !headers.contains_key("connection") && !headers.contains_key("host"));

        let config = config::Proxy::default();
        let peer = Peer { remote: ([192, 0, 2, 1], 1).into(), port: 1, is_secure: false };
        let outward = Outward { config: &config, peer, name: "courser-7" };
        for (via, loops) in [("1.1 courser-7", true), ("1.1 a, 3 courser-7 (x)", true), ("1.1 courser-77", false)] {
            assert_eq!(outward.loops(&HeaderMap::from_iter([(header::VIA, via.parse().unwrap())])), loops, "{via}");
        }
    }
}
