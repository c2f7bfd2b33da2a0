//! Cases of downloads over real sockets, each over every version of HTTP where the version does not matter.
//!
//! | Module | What it holds |
//! |---|---|
//! | `plain` | requests and answers |
//! | `broken` | servers that fail, stall, lie or vanish |
//! | `resume` | what an earlier run left |
//! | `wire` | HTTP/1.1 byte by byte: 1xx, lengths, connections that wait |
//! | `race` | alternatives and records, and HTTP/3 against TCP |
//! | `records` | HTTPS records of a name server on loopback |
//! | `again` | requests that are made again over TCP |
//! | `early` | requests before the handshake (0-RTT) |

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod again;
mod broken;
mod early;
mod plain;
mod race;
mod records;
mod relay;
mod resume;
mod support;
mod wire;

/// A test for each version of HTTP.
macro_rules! over_each {
    ($(async fn $name:ident($kind:ident: Kind) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn case($kind: Kind) $body

            #[tokio::test]
            async fn over_http_1() {
                case(Kind::H1).await;
            }

            #[tokio::test]
            async fn over_http_2() {
                case(Kind::H2).await;
            }

            #[tokio::test]
            async fn over_http_3() {
                case(Kind::H3).await;
            }
        }
    )*};
}
use over_each;
