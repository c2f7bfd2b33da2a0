//! QPACK (RFC 9204): field sections by reference to a static and a dynamic table.
//!
//! [`Encoder`] and [`Decoder`] are the two ends of one direction; an HTTP/3 endpoint has one of each. Neither knows
//! streams: the caller carries the bytes of the encoder's and the decoder's stream, and of the sections.

mod blocked;
mod decoder;
mod dynamic_table;
mod encoder;
mod huffman;
mod index;
mod instructions;
mod policy;
mod prefix_int;
mod sections;
mod static_table;
#[cfg(test)]
mod testing;
mod text;

pub use decoder::{Decoded, Decoder, DecoderConfig};
pub use encoder::{Encoder, EncoderConfig};

/// One field line. Names are lower case (RFC 9114 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, pseudo-header fields with their colon.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Never enters a table, here or at an intermediary (RFC 9204 section 7.1.3).
    pub sensitive: bool,
}

impl<'a> Field<'a> {
    /// A field line that may be indexed.
    #[must_use]
    pub const fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        Self { name, value, sensitive: false }
    }
}
