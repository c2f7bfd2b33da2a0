//! Hostile clients of the web servers, hostile origins of the proxy, and hostile servers of the downloader.
//!
//! They keep the rules of QUIC and break those of HTTP/3, QPACK and good manners: [`guest`](crate::guest) is the engine below.

pub mod bytes;
pub mod get;
pub mod honest;
pub mod origin;
pub mod proxy;
pub mod serve;
pub mod site;
pub mod visit;

use std::io;

use courser_core::ids::Side;

use crate::scripts::Close::{self, Free, Perhaps, With};
use crate::scripts::Program::{self, Get, Proxy, Serve};
use crate::scripts::{Attack, Script};
use visit::Visit;

type Run = fn(&mut Visit) -> io::Result<()>;

const fn client(name: &'static str, what: &'static str, victim: Program, run: Run, close: Close) -> Script {
    Script { name, role: Side::Client, what, attack: Attack::Web(run), victim, close }
}

const fn server(name: &'static str, what: &'static str, victim: Program, run: Run, close: Close) -> Script {
    Script { name, role: Side::Server, what, attack: Attack::Web(run), victim, close }
}

/// All of them.
pub const WEB: &[Script] = &[
    client(
        "serve-rapid-reset",
        "requests that are given up as soon as they were sent",
        Serve,
        serve::rapid_reset,
        Perhaps(0x107),
    ),
    client("serve-header-bomb", "heads beyond every limit", Serve, serve::header_bomb, Perhaps(0x107)),
    client("serve-field-bomb", "thousands of short fields", Serve, serve::field_bomb, Perhaps(0x107)),
    client(
        "serve-qpack-bomb",
        "one large entry in the dynamic table, and heads that name it sixty times",
        Serve,
        serve::qpack_bomb,
        Perhaps(0x107),
    ),
    client(
        "serve-qpack-blocked",
        "more streams than may wait for the dynamic table",
        Serve,
        serve::qpack_blocked,
        With(0x200),
    ),
    client("serve-qpack-inserts", "entries that nobody refers to", Serve, serve::qpack_inserts, Perhaps(0x107)),
    client("serve-qpack-duplicates", "one entry doubled over and over", Serve, serve::qpack_duplicates, Perhaps(0x107)),
    client(
        "serve-qpack-capacities",
        "the capacity set to and fro, which empties the table each time",
        Serve,
        serve::qpack_capacities,
        Perhaps(0x107),
    ),
    client("serve-qpack-capacity", "a capacity that was not offered", Serve, serve::qpack_capacity, With(0x201)),
    client("serve-qpack-acks", "acknowledgements of sections that never were", Serve, serve::qpack_acks, With(0x202)),
    client(
        "serve-qpack-cancellations",
        "cancellations of streams that never were",
        Serve,
        serve::qpack_cancellations,
        Perhaps(0x107),
    ),
    client("serve-slow-heads", "heads byte by byte on all streams", Serve, serve::slow_heads, Free),
    client("serve-slow-bodies", "uploads that never get on, on all streams", Serve, serve::slow_bodies, Free),
    client("serve-empty-data", "DATA frames of no bytes", Serve, serve::empty_data, Perhaps(0x107)),
    client(
        "serve-grease-on-a-request",
        "frames of reserved types on a request",
        Serve,
        serve::grease_on_a_request,
        Perhaps(0x107),
    ),
    client(
        "serve-grease-on-control",
        "frames of reserved types on the control stream",
        Serve,
        serve::grease_on_control,
        Perhaps(0x107),
    ),
    client("serve-settings-twice", "SETTINGS once more", Serve, serve::settings_twice, With(0x105)),
    client("serve-settings-of-old", "a setting of HTTP/2", Serve, serve::settings_of_old, With(0x109)),
    client("serve-settings-without-end", "SETTINGS of a megabyte", Serve, serve::settings_without_end, With(0x107)),
    client("serve-control-ends", "the control stream ends", Serve, serve::control_ends, With(0x104)),
    client("serve-control-is-reset", "the control stream is reset", Serve, serve::control_is_reset, With(0x104)),
    client("serve-two-controls", "a second control stream", Serve, serve::two_controls, With(0x103)),
    client(
        "serve-goaway-rises",
        "GOAWAY that takes back what an earlier one said",
        Serve,
        serve::goaway_rises,
        With(0x108),
    ),
    client("serve-goaways", "GOAWAY over and over", Serve, serve::goaways, Perhaps(0x107)),
    client("serve-push-limit-falls", "a limit of pushes that falls", Serve, serve::push_limit_falls, With(0x108)),
    client("serve-push-limits", "limits of pushes over and over", Serve, serve::push_limits, Perhaps(0x107)),
    client("serve-push-from-client", "a push from a client", Serve, serve::push_from_client, With(0x105)),
    client("serve-cancel-push", "a cancellation of a push that never was", Serve, serve::cancel_push, With(0x108)),
    client("serve-priorities", "priorities of requests that never come", Serve, serve::priorities, Perhaps(0x107)),
    client(
        "serve-unknown-streams",
        "one-way streams of types that nobody knows",
        Serve,
        serve::unknown_streams,
        Perhaps(0x107),
    ),
    client("serve-unread", "downloads on all streams, of which nothing is read", Serve, serve::unread, Free),
    client(
        "serve-smuggling",
        "heads and contents that two readers could take for different requests",
        Serve,
        serve::smuggling,
        Perhaps(0x107),
    ),
    client("serve-connects", "CONNECT to anywhere", Serve, serve::connects, Perhaps(0x107)),
    client(
        "serve-tunnels",
        "extended CONNECT of every kind, and capsules behind it",
        Serve,
        serve::tunnels,
        Perhaps(0x107),
    ),
    client("serve-datagrams", "datagrams for requests that are not there", Serve, serve::datagrams, Free),
    client("serve-ranges", "a thousand ranges of one file that overlap", Serve, serve::ranges, Free),
    client("serve-traversal", "paths that lead out of the folder", Serve, serve::traversal, Free),
    client("serve-trailer-bomb", "trailers beyond every limit", Serve, serve::trailer_bomb, Perhaps(0x107)),
    client("serve-trailers-again", "trailers, and trailers again", Serve, serve::trailers_again, Perhaps(0x105)),
    client("serve-data-first", "content before any head", Serve, serve::data_first, With(0x105)),
    client("serve-half-frame", "a stream that ends in the middle of a frame", Serve, serve::half_frame, With(0x106)),
    client(
        "serve-endless-frame",
        "a frame whose length is the largest there is, bit by bit",
        Serve,
        serve::endless_frame,
        Free,
    ),
    client("serve-frame-of-old", "a frame of HTTP/2 on a request", Serve, serve::frame_of_old, With(0x105)),
    client("serve-pages", "as many requests for a page as there can be", Serve, serve::pages, Free),
    client("serve-no-control", "no control stream at all, and requests nevertheless", Serve, serve::no_control, Free),
    client("serve-late-bytes", "content for a request that is answered without it", Serve, serve::late_bytes, Free),
    client("proxy-bad-answers", "answers of the origin that are none", Proxy, proxy::bad_answers, Free),
    client(
        "proxy-slow-answers",
        "many requests that the origin answers byte by byte",
        Proxy,
        proxy::slow_answers,
        Free,
    ),
    client(
        "proxy-splitting",
        "requests that would be two at an origin of HTTP/1.1",
        Proxy,
        proxy::splitting,
        Perhaps(0x107),
    ),
    client(
        "proxy-rapid-reset",
        "requests that are given up as soon as they were sent",
        Proxy,
        serve::rapid_reset,
        Perhaps(0x107),
    ),
    client("proxy-header-bomb", "heads beyond every limit", Proxy, serve::header_bomb, Perhaps(0x107)),
    client("proxy-slow-heads", "heads byte by byte on all streams", Proxy, serve::slow_heads, Free),
    client("proxy-slow-bodies", "uploads that never get on, on all streams", Proxy, serve::slow_bodies, Free),
    client(
        "proxy-smuggling",
        "heads and contents that two readers could take for different requests",
        Proxy,
        serve::smuggling,
        Perhaps(0x107),
    ),
    client("proxy-unread", "downloads on all streams, of which nothing is read", Proxy, serve::unread, Free),
    client("proxy-trailer-bomb", "trailers beyond every limit", Proxy, serve::trailer_bomb, Perhaps(0x107)),
    client(
        "proxy-tunnels",
        "extended CONNECT of every kind, and capsules behind it",
        Proxy,
        serve::tunnels,
        Perhaps(0x107),
    ),
    client("proxy-pages", "as many requests for a page as there can be", Proxy, serve::pages, Free),
    client(
        "proxy-endless-frame",
        "a frame whose length is the largest there is, bit by bit",
        Proxy,
        serve::endless_frame,
        Free,
    ),
    server("get-endless-head", "a head without end", Get(&[]), get::endless_head, Free),
    server("get-header-bomb", "a head beyond the limit", Get(&[]), get::header_bomb, Free),
    server("get-interim", "interim answers without end", Get(&[]), get::interim, Free),
    server(
        "get-switching",
        "a head that switches protocols, which HTTP/3 does not have",
        Get(&[]),
        get::switching,
        Free,
    ),
    server("get-push", "a push that nobody allowed", Get(&[]), get::push, With(0x108)),
    server("get-push-stream", "a stream of a push that nobody allowed", Get(&[]), get::push_stream, With(0x108)),
    server("get-goaway-rises", "GOAWAY that rises", Get(&[]), get::goaway_rises, With(0x108)),
    server(
        "get-goaway-names-a-push",
        "GOAWAY that names a stream of the server",
        Get(&[]),
        get::goaway_names_a_push,
        With(0x108),
    ),
    server("get-goaway", "GOAWAY that takes the request back, and no answer", Get(&[]), get::goaway, Free),
    server("get-qpack-bomb", "a large entry, and a head that names it sixty times", Get(&[]), get::qpack_bomb, Free),
    server("get-qpack-blocked", "a head that waits for an entry that never comes", Get(&[]), get::qpack_blocked, Free),
    server("get-qpack-inserts", "entries without end", Get(&[]), get::qpack_inserts, Perhaps(0x107)),
    server("get-qpack-capacity", "a capacity that was not offered", Get(&[]), get::qpack_capacity, With(0x201)),
    server("get-dribble", "content byte by byte", Get(&[]), get::dribble, Free),
    server("get-too-long", "more content than was said", Get(&[]), get::too_long, Free),
    server("get-too-short", "less content than was said", Get(&[]), get::too_short, Free),
    server("get-settings-twice", "SETTINGS once more", Get(&[]), get::settings_twice, With(0x105)),
    server("get-control-ends", "the control stream ends", Get(&[]), get::control_ends, With(0x104)),
    server("get-no-settings", "something other than SETTINGS first", Get(&[]), get::no_settings, With(0x10a)),
    server("get-push-limit", "a limit of pushes from a server", Get(&[]), get::push_limit, With(0x105)),
    server(
        "get-unknown-streams",
        "one-way streams of types that nobody knows",
        Get(&[]),
        get::unknown_streams,
        Perhaps(0x107),
    ),
    server("get-data-first", "content before the head", Get(&[]), get::data_first, With(0x105)),
    server("get-empty-data", "DATA frames of no bytes", Get(&[]), get::empty_data, Perhaps(0x107)),
    server("get-trailer-bomb", "trailers beyond the limit", Get(&[]), get::trailer_bomb, Free),
    server(
        "get-own-request",
        "a two-way stream that a server may not open, where the client's limit has one",
        Get(&[]),
        get::own_request,
        Perhaps(0x103),
    ),
    server("get-silence", "nothing at all after the handshake", Get(&[]), get::silence, Free),
    server("get-malformed", "fields that are none, and heads that are none", Get(&[]), get::malformed, Free),
    server("get-cut-off", "a reset in the middle of the content", Get(&[]), get::cut_off, Free),
    server("get-datagrams", "datagrams that nobody asked for", Get(&[]), get::datagrams, Free),
    server(
        "get-compressed-bomb",
        "a gigabyte of zeros, compressed",
        Get(&["--compressed"]),
        get::compressed_bomb,
        Free,
    ),
    server(
        "get-compressed-window",
        "a window that no client can hold",
        Get(&["--compressed"]),
        get::compressed_window,
        Free,
    ),
    server("get-redirects", "redirects to the same page without end", Get(&["-L"]), get::redirects, Free),
];
