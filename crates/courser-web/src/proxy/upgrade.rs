//! WebSocket through the proxy: a request of any version becomes an upgrade of HTTP/1.1 at the origin, then bytes go both ways.
//!
//! A client of HTTP/1.1 asks with `Upgrade` and keeps its own key; clients of HTTP/2 and HTTP/3 ask with extended CONNECT (RFC
//! 8441, RFC 9220), for which a key is made here and the origin's answer to it checked. What the origin answers in place of
//! an upgrade is passed on. Tunnels have places of their own, so that they keep no request waiting. One ends when both ends have, when
//! either breaks off, or when nothing goes either way for as long as a body may pause.

use std::sync::Arc;

use aws_lc_rs::{digest, rand};
use courser::h3;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;

use super::fields::strip;
use super::interim::Interims;
use super::tunnel::{self, Far};
use super::{Origin, Unanswered, closed_meanwhile};
use crate::app::Peer;
use crate::body::{Body, RequestBody};

/// The one protocol that is passed on.
const WEBSOCKET: &str = "websocket";
/// What RFC 6455 puts behind a key before it is hashed.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How a client asks for another protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Not at all.
    Nothing,
    /// For a WebSocket, by a field of HTTP/1.1.
    Field,
    /// For a WebSocket, by extended CONNECT.
    Extended,
    /// For a tunnel to the place that it names, by plain CONNECT.
    Tunnel,
    /// For something that is not passed on.
    Other,
}

/// What a request asks for.
#[must_use]
pub fn asked(parts: &Parts) -> Asked {
    if parts.method == Method::CONNECT {
        let h2 = parts.extensions.get::<hyper::ext::Protocol>().map(hyper::ext::Protocol::as_str);
        let protocol = h2.or_else(|| parts.extensions.get::<h3::Protocol>().map(h3::Protocol::as_str));
        return match protocol {
            None => Asked::Tunnel,
            Some(WEBSOCKET) => Asked::Extended,
            Some(_) => Asked::Other,
        };
    }
    // Other versions have no such fields, HTTP/1.0 is to ignore them.
    if parts.version != Version::HTTP_11 || !lists(&parts.headers, &header::CONNECTION, "upgrade") {
        return Asked::Nothing;
    }
    match parts.headers.contains_key(header::UPGRADE) {
        false => Asked::Nothing,
        true if lists(&parts.headers, &header::UPGRADE, WEBSOCKET) && parts.method == Method::GET => Asked::Field,
        true => Asked::Other,
    }
}

/// Whether a list has that member.
fn lists(headers: &HeaderMap, name: &header::HeaderName, member: &str) -> bool {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(member)))
}

impl Origin {
    /// Asks the origin for a WebSocket.
    pub(super) async fn upgrade(
        &self,
        mut parts: Parts,
        body: RequestBody,
        peer: Peer,
    ) -> Result<Response<Body>, Unanswered> {
        let extended = parts.method == Method::CONNECT;
        if self.config.http2 {
            let text = "The server behind this one is spoken to in HTTP/2, which is not upgraded.";
            return Err(Unanswered(StatusCode::NOT_IMPLEMENTED, text));
        }
        if !extended && !http_body::Body::is_end_stream(&body) {
            return Err(Unanswered(StatusCode::BAD_REQUEST, "A request for a WebSocket has no body."));
        }
        let Ok(place) = Arc::clone(&self.tunnels).try_acquire_owned() else {
            tracing::warn!(origin = %self.uri, "all {} places for tunnels are taken", self.config.tunnels);
            return Err(Unanswered(StatusCode::SERVICE_UNAVAILABLE, "There are too many WebSockets."));
        };
        let client = parts.extensions.remove::<OnUpgrade>();
        let key = if extended { Some(as_upgrade(&mut parts)?) } else { None };
        let response = self.ask_for_upgrade(&parts, peer).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // As an answer to CONNECT it would say that there is a tunnel.
            if extended && response.status().is_success() {
                return Err(Unanswered(
                    StatusCode::BAD_GATEWAY,
                    "The server behind this one knows no WebSocket there.",
                ));
            }
            return self.inward(response, place);
        }
        let agreed = lists(response.headers(), &header::UPGRADE, WEBSOCKET);
        let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        if !agreed || key.is_some_and(|key| accepted != Some(accept(key.as_bytes()).as_bytes())) {
            tracing::warn!(origin = %self.uri, "the origin switches to something that was not asked");
            return Err(Unanswered(StatusCode::BAD_GATEWAY, "The server behind this one answered something else."));
        }
        let mut answer = self.switched(response, client, body, place).await?;
        let headers = answer.headers_mut();
        if extended {
            headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        } else {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        Ok(answer)
    }

    async fn ask_for_upgrade(&self, parts: &Parts, peer: Peer) -> Result<Response<Incoming>, Unanswered> {
        let mut again = true;
        let interims = Interims::new(parts);
        loop {
            let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
            let mut request = self.outward(parts.clone(), empty, peer)?;
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
            match tokio::time::timeout(self.config.response_timeout, self.within(&interims, request)).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(Some(e))) if again && closed_meanwhile(&e) => again = false,
                Ok(Err(Some(e))) => return Err(self.failed(&e)),
                Ok(Err(None)) => return Err(self.endless()),
                Err(_) => return Err(self.late()),
            }
        }
    }

    /// The answer that begins a tunnel.
    async fn switched(
        &self,
        mut response: Response<Incoming>,
        client: Option<OnUpgrade>,
        body: RequestBody,
        place: OwnedSemaphorePermit,
    ) -> Result<Response<Body>, Unanswered> {
        let broke = |_| Unanswered(StatusCode::BAD_GATEWAY, "The server behind this one broke off.");
        let origin = hyper::upgrade::on(&mut response).await.map_err(broke)?;
        let (mut head, _) = response.into_parts();
        strip(&mut head.headers);
        head.headers.remove(header::ALT_SVC);
        let origin: Far = Box::new(TokioIo::new(origin));
        let body = tunnel::begin((client, body), origin, self.config.idle_timeout, place);
        let mut answer = Response::new(body);
        *answer.headers_mut() = head.headers;
        Ok(answer)
    }
}

/// Turns an extended CONNECT into the request of HTTP/1.1 that means the same; the key that was made for it.
fn as_upgrade(parts: &mut Parts) -> Result<HeaderValue, Unanswered> {
    let failed = |_| Unanswered(StatusCode::INTERNAL_SERVER_ERROR, "There is no chance on this machine.");
    let mut nonce = [0; 16];
    rand::fill(&mut nonce).map_err(failed)?;
    let key = HeaderValue::try_from(base64(&nonce)).expect("Base64 is text");
    parts.method = Method::GET;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::SEC_WEBSOCKET_KEY, key.clone());
    parts.headers.entry(header::SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
    Ok(key)
}

/// What a server answers to a key (RFC 6455 section 4.2.2).
#[must_use]
pub fn accept(key: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    base64(hash.as_ref())
}

/// Base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (word >> (18 - 6 * digit)) & 63;
            text.push(if digit > three.len() { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_rfc_shows() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn who_asks_for_what() {
        for (fields, version, expected) in [
            (vec![("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")], Version::HTTP_11, Asked::Field),
            (vec![("connection", "upgrade"), ("upgrade", "h2c")], Version::HTTP_11, Asked::Other),
            (vec![("connection", "upgrade"), ("upgrade", "websocket")], Version::HTTP_10, Asked::Nothing),
            (vec![("upgrade", "websocket")], Version::HTTP_11, Asked::Nothing),
            (vec![("connection", "upgrade")], Version::HTTP_11, Asked::Nothing),
        ] {
            let mut request = http::Request::get("/").version(version);
            for (name, value) in &fields {
                request = request.header(*name, *value);
            }
            assert_eq!(asked(&request.body(()).unwrap().into_parts().0), expected, "{fields:?}");
        }
        let connect = || http::Request::connect("a:1").body(()).unwrap().into_parts().0;
        assert_eq!(asked(&connect()), Asked::Tunnel);
        for (protocol, expected) in [("websocket", Asked::Extended), ("connect-udp", Asked::Other)] {
            let (mut old, mut new) = (connect(), connect());
            old.extensions.insert(hyper::ext::Protocol::from_static(protocol));
            new.extensions.insert(h3::Protocol::new(protocol).unwrap());
            assert_eq!((asked(&old), asked(&new)), (expected, expected));
        }
    }
}
