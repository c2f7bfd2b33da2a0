//! What must hold for any bytes of TLS that this crate reads itself, for fuzzers and for plain tests.

use crate::post::PostHandshake;

/// Reads messages of a server after the handshake, whole and in pieces.
///
/// # Panics
/// When something is found in the whole and not in its pieces.
pub fn post_handshake(data: &[u8]) {
    let mut whole = PostHandshake::default();
    let judged = whole.read(data);
    for piece in [1, 5] {
        let mut reader = PostHandshake::default();
        let in_pieces = data.chunks(piece).try_for_each(|piece| reader.read(piece));
        assert!(judged.is_ok() || in_pieces.is_err(), "pieces hide what is wrong");
        assert!(in_pieces.is_err() || !whole.has_other() || reader.has_other(), "pieces hide what is no ticket");
    }
}
