//! Messages as bytes.
//!
//! A message is a tag and its fields one after the other: numbers little-endian, texts and lists behind their length,
//! what may be missing behind a 0 or a 1. All tags are different, so that a message is never taken for another one.
//! Each field is checked as it is read, against the bytes that there are and against its limit, before anything is
//! allocated for it.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::{
    Attached, Fault, FromHost, LIST_MAX, MESSAGE_MAX, NAME_MAX, Notice, OUTPUT_MAX, Open, OpenedMsg, PEM_MAX, Profile,
    Protocol, Reply, Request, Role, TEXT_MAX, Trust, WORD_MAX, WORDS_MAX,
};
use crate::{
    num::{clamp, widen},
    port::{PortSetup, SharedSetup},
};

const ATTACH: u8 = 1;
const ADD_CERTIFICATE: u8 = 2;
const REMOVE_CERTIFICATE: u8 = 3;
const OPEN: u8 = 4;
const CLOSE: u8 = 5;
const COMMAND: u8 = 6;
const ATTACHED: u8 = 64;
const CERTIFICATE: u8 = 65;
const OPENED: u8 = 66;
const DONE: u8 = 67;
const FAILED: u8 = 68;
const OUTPUT: u8 = 69;
const DRAINING: u8 = 128;
const ENDPOINT_GONE: u8 = 129;
const SUCCEEDED: u8 = 130;

/// The bytes are no message; what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a control message makes no sense: {}", self.0)
    }
}

impl core::error::Error for Malformed {}

type Result<T> = core::result::Result<T, Malformed>;

/// What is left of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("neither yes nor no")),
        }
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    fn bytes(&mut self, max: usize) -> Result<&'a [u8]> {
        let count = widen(self.u32()?);
        if count > max {
            return Err(Malformed("a field is longer than it may be"));
        }
        self.take(count)
    }

    fn text(&mut self, max: usize) -> Result<String> {
        match core::str::from_utf8(self.bytes(max)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Malformed("a text is not UTF-8")),
        }
    }

    fn list<T>(&mut self, max: usize, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = usize::from(self.u8()?);
        if count > max {
            return Err(Malformed("a list is longer than it may be"));
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn address(&mut self) -> Result<SocketAddr> {
        let family = self.u8()?;
        let port = self.u16()?;
        match family {
            4 => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)), port)),
            6 => {
                let ip = Ipv6Addr::from(self.array::<16>()?);
                let (flow, scope) = (self.u32()?, self.u32()?);
                Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
            }
            _ => Err(Malformed("an address of no known family")),
        }
    }

    /// One of these, by its place among them.
    fn choice<T: Copy>(&mut self, of: &[T]) -> Result<T> {
        of.get(usize::from(self.u8()?)).copied().ok_or(Malformed("a choice that there is not"))
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("something follows its end")) }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&clamp(bytes.len()).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The front of a text that is not longer than that.
fn cut(text: &str, max: usize) -> &str {
    let end =
        if max >= text.len() { text.len() } else { (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0) };
    &text[..end]
}

/// A list of more than 255 entries is told as one of 255, which nobody takes.
fn put_list<T>(out: &mut Vec<u8>, list: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    let count = u8::try_from(list.len()).unwrap_or(u8::MAX);
    out.push(count);
    list.iter().take(usize::from(count)).for_each(|entry| put(out, entry));
}

fn put_optional<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_u64(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_u32(out: &mut Vec<u8>, n: u32) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_u16(out: &mut Vec<u8>, n: u16) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_address(out: &mut Vec<u8>, address: &SocketAddr) {
    match address {
        SocketAddr::V4(v4) => put_v4(out, v4),
        SocketAddr::V6(v6) => {
            out.push(6);
            put_u16(out, v6.port());
            out.extend_from_slice(&v6.ip().octets());
            put_u32(out, v6.flowinfo());
            put_u32(out, v6.scope_id());
        }
    }
}

fn put_v4(out: &mut Vec<u8>, address: &SocketAddrV4) {
    out.push(4);
    put_u16(out, address.port());
    out.extend_from_slice(&address.ip().octets());
}

/// The place of a value among those that there are; it is one of them.
fn place<T: PartialEq>(of: &[T], value: &T) -> u8 {
    let at = of.iter().position(|one| one == value).unwrap_or(usize::from(u8::MAX));
    u8::try_from(at).unwrap_or(u8::MAX)
}

impl Profile {
    fn put(&self, out: &mut Vec<u8>) {
        put_list(out, &self.certificates, |out, id| put_u32(out, *id));
        put_list(out, &self.alpn, |out, name| {
            out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(name.get(..255).unwrap_or(name));
        });
        match &self.trust {
            Trust::System => out.push(0),
            Trust::Roots(pem) => {
                out.push(1);
                put_bytes(out, pem);
            }
            Trust::Anybody => out.push(2),
        }
        put_optional(out, self.idle_timeout_ms, put_u64);
        put_optional(out, self.keep_alive_ms, put_u64);
        out.push(u8::from(self.datagrams));
        put_optional(out, self.workers, put_u16);
        put_optional(out, self.congestion.as_ref(), |out, name| put_bytes(out, name.as_bytes()));
        put_optional(out, self.streams, put_u64);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            certificates: from.list(LIST_MAX, Reader::u32)?,
            alpn: from.list(LIST_MAX, |from| {
                let count = usize::from(from.u8()?);
                if count == 0 {
                    return Err(Malformed("a protocol without a name"));
                }
                from.take(count).map(<[u8]>::to_vec)
            })?,
            trust: match from.u8()? {
                0 => Trust::System,
                1 => Trust::Roots(from.bytes(PEM_MAX)?.to_vec()),
                2 => Trust::Anybody,
                _ => return Err(Malformed("trust of no known kind")),
            },
            idle_timeout_ms: from.optional(Reader::u64)?,
            keep_alive_ms: from.optional(Reader::u64)?,
            datagrams: from.bool()?,
            workers: from.optional(Reader::u16)?,
            congestion: from.optional(|from| from.text(NAME_MAX))?,
            streams: from.optional(Reader::u64)?,
        })
    }
}

impl Open {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(place(&Protocol::ALL, &self.protocol));
        match &self.role {
            Role::Listen(at) => {
                out.push(0);
                put_address(out, at);
            }
            Role::Dial(from) => {
                out.push(1);
                put_optional(out, from.as_ref(), put_address);
            }
        }
        self.profile.put(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            protocol: from.choice(&Protocol::ALL)?,
            role: match from.u8()? {
                0 => Role::Listen(from.address()?),
                1 => Role::Dial(from.optional(Reader::address)?),
                _ => return Err(Malformed("an endpoint of no known kind")),
            },
            profile: Profile::read(from)?,
        })
    }
}

impl Request {
    /// Appends the message. Nothing is checked: what is too long is turned down by whoever decodes it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Attach { version, name } => {
                out.push(ATTACH);
                put_u16(out, *version);
                put_bytes(out, name.as_bytes());
            }
            Self::AddCertificate { chain, key } => {
                out.push(ADD_CERTIFICATE);
                put_bytes(out, chain);
                put_bytes(out, key);
            }
            Self::RemoveCertificate { id } => {
                out.push(REMOVE_CERTIFICATE);
                put_u32(out, *id);
            }
            Self::Open(open) => {
                out.push(OPEN);
                open.put(out);
            }
            Self::Close { endpoint } => {
                out.push(CLOSE);
                put_u32(out, *endpoint);
            }
            Self::Command { words, json } => {
                out.push(COMMAND);
                out.push(u8::from(*json));
                put_list(out, words, |out, word| put_bytes(out, word.as_bytes()));
            }
        }
    }

    /// Reads a message that is exactly these bytes.
    ///
    /// # Errors
    /// [`Malformed`] when it is none, or a field is longer than it may be.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = Reader(bounded(bytes)?);
        let request = match from.u8()? {
            ATTACH => Self::Attach { version: from.u16()?, name: from.text(NAME_MAX)? },
            ADD_CERTIFICATE => {
                Self::AddCertificate { chain: from.bytes(PEM_MAX)?.to_vec(), key: from.bytes(PEM_MAX)?.to_vec() }
            }
            REMOVE_CERTIFICATE => Self::RemoveCertificate { id: from.u32()? },
            OPEN => Self::Open(Box::new(Open::read(&mut from)?)),
            CLOSE => Self::Close { endpoint: from.u32()? },
            COMMAND => {
                let json = from.bool()?;
                Self::Command { json, words: from.list(WORDS_MAX, |from| from.text(WORD_MAX))? }
            }
            _ => return Err(Malformed("a request of no known kind")),
        };
        from.end()?;
        Ok(request)
    }
}

fn bounded(bytes: &[u8]) -> Result<&[u8]> {
    if bytes.len() > MESSAGE_MAX { Err(Malformed("it is longer than it may be")) } else { Ok(bytes) }
}

impl SharedSetup {
    fn put(&self, out: &mut Vec<u8>) {
        put_u32(out, self.port.submissions);
        put_u32(out, self.port.completions);
        put_u64(out, self.port.share_bytes);
        put_u32(out, self.port.delivery_window_bytes);
        put_u32(out, self.outbound_bytes);
        put_u32(out, self.chunk_bytes);
        put_u32(out, self.inbound_chunks);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let port = PortSetup {
            submissions: from.u32()?,
            completions: from.u32()?,
            share_bytes: from.u64()?,
            delivery_window_bytes: from.u32()?,
        };
        Ok(Self { port, outbound_bytes: from.u32()?, chunk_bytes: from.u32()?, inbound_chunks: from.u32()? })
    }
}

impl Reply {
    /// Appends the message. Explanations are cut at [`TEXT_MAX`], pieces of output at [`OUTPUT_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Attached(limits) => {
                out.push(ATTACHED);
                put_u64(out, limits.application);
                put_u32(out, limits.endpoints_max);
                put_u32(out, limits.sessions_max);
                put_u64(out, limits.memory_max);
            }
            Self::Certificate { id } => {
                out.push(CERTIFICATE);
                put_u32(out, *id);
            }
            Self::Opened(opened) => {
                out.push(OPENED);
                put_u32(out, opened.endpoint);
                put_address(out, &opened.local);
                opened.setup.put(out);
                put_u16(out, opened.ports);
                out.push(opened.first_worker);
            }
            Self::Done => out.push(DONE),
            Self::Failed { fault, text } => {
                out.push(FAILED);
                out.push(place(&Fault::ALL, fault));
                put_bytes(out, cut(text, TEXT_MAX).as_bytes());
            }
            Self::Output { text, more } => {
                out.push(OUTPUT);
                out.push(u8::from(*more));
                put_bytes(out, cut(text, OUTPUT_MAX).as_bytes());
            }
        }
    }

    /// The output of a command in pieces that fit into messages: at least one.
    pub fn output(text: &str) -> impl Iterator<Item = Self> {
        let mut rest = Some(text);
        core::iter::from_fn(move || {
            let text = rest?;
            let piece = cut(text, OUTPUT_MAX);
            let left = &text[piece.len()..];
            rest = (!left.is_empty()).then_some(left);
            Some(Self::Output { text: piece.to_owned(), more: rest.is_some() })
        })
    }

    fn read(tag: u8, from: &mut Reader<'_>) -> Result<Self> {
        Ok(match tag {
            ATTACHED => Self::Attached(Attached {
                application: from.u64()?,
                endpoints_max: from.u32()?,
                sessions_max: from.u32()?,
                memory_max: from.u64()?,
            }),
            CERTIFICATE => Self::Certificate { id: from.u32()? },
            OPENED => Self::Opened(OpenedMsg {
                endpoint: from.u32()?,
                local: from.address()?,
                setup: SharedSetup::read(from)?,
                ports: from.u16()?,
                first_worker: from.u8()?,
            }),
            DONE => Self::Done,
            FAILED => Self::Failed { fault: from.choice(&Fault::ALL)?, text: from.text(TEXT_MAX)? },
            OUTPUT => {
                let more = from.bool()?;
                Self::Output { more, text: from.text(OUTPUT_MAX)? }
            }
            _ => return Err(Malformed("an answer of no known kind")),
        })
    }

    /// Reads a message that is exactly these bytes.
    ///
    /// # Errors
    /// [`Malformed`] when it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        match FromHost::decode(bytes)? {
            FromHost::Reply(reply) => Ok(reply),
            FromHost::Notice(_) => Err(Malformed("a notice where an answer is due")),
        }
    }
}

impl Notice {
    /// Appends the message. Explanations are cut at [`TEXT_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Draining => out.push(DRAINING),
            Self::Succeeded => out.push(SUCCEEDED),
            Self::EndpointGone { endpoint, text } => {
                out.push(ENDPOINT_GONE);
                put_u32(out, *endpoint);
                put_bytes(out, cut(text, TEXT_MAX).as_bytes());
            }
        }
    }

    fn read(tag: u8, from: &mut Reader<'_>) -> Result<Self> {
        Ok(match tag {
            DRAINING => Self::Draining,
            SUCCEEDED => Self::Succeeded,
            _ => Self::EndpointGone { endpoint: from.u32()?, text: from.text(TEXT_MAX)? },
        })
    }

    /// Reads a message that is exactly these bytes.
    ///
    /// # Errors
    /// [`Malformed`] when it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        match FromHost::decode(bytes)? {
            FromHost::Notice(notice) => Ok(notice),
            FromHost::Reply(_) => Err(Malformed("an answer where a notice is due")),
        }
    }
}

impl FromHost {
    /// Reads a message that is exactly these bytes.
    ///
    /// # Errors
    /// [`Malformed`] when it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = Reader(bounded(bytes)?);
        let message = match from.u8()? {
            tag @ (DRAINING | ENDPOINT_GONE | SUCCEEDED) => Self::Notice(Notice::read(tag, &mut from)?),
            tag => Self::Reply(Reply::read(tag, &mut from)?),
        };
        from.end()?;
        Ok(message)
    }
}
