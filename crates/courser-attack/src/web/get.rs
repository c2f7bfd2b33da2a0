//! What hostile servers do to `courser get`.

use std::io;
use std::time::Duration;

use courser_core::ids::Dir;
use courser_testing::web::{capacity, frame, headers, insert, int, referring, section};

use super::bytes::Field;
use super::visit::Visit;

const OK: Field<'static> = (b":status", b"200");

/// Answers with these bytes, and waits for what comes of it.
fn answer(v: &mut Visit, bytes: &[u8]) -> io::Result<()> {
    v.control()?;
    let id = v.asked()?;
    v.say(id, bytes)?;
    v.wait()
}

/// Says these bytes on the control stream once there is a request, and waits for what comes of it.
fn command(v: &mut Visit, bytes: &[u8]) -> io::Result<()> {
    let control = v.control()?;
    v.asked()?;
    v.say(control, bytes)?;
    v.wait()
}

/// A head without end.
pub fn endless_head(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.asked()?;
    v.say(id, &[int(1), int(u64::MAX)].concat())?;
    v.pour(id, |_| section(&[(b"a", b"0123456789")])[2..].to_vec())
}

/// A head beyond the limit.
pub fn header_bomb(v: &mut Visit) -> io::Result<()> {
    let value = vec![b'v'; 60_000];
    let fields = [OK, (b"a", &value), (b"b", &value), (b"c", &value)];
    answer(v, &headers(&fields))
}

/// Interim answers without end.
pub fn interim(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.asked()?;
    v.pour(id, |_| headers(&[(b":status", b"103"), (b"link", b"</a>")]))
}

/// A head that switches protocols, which HTTP/3 does not have.
pub fn switching(v: &mut Visit) -> io::Result<()> {
    answer(v, &headers(&[(b":status", b"101")]))
}

/// A push that nobody allowed.
pub fn push(v: &mut Visit) -> io::Result<()> {
    let request = section(&[(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/b")]);
    answer(v, &frame(5, &[int(0), request].concat()))
}

/// A stream of a push that nobody allowed.
pub fn push_stream(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    v.asked()?;
    v.uni(&[int(1), int(0)].concat())?;
    v.wait()
}

/// GOAWAY that rises.
pub fn goaway_rises(v: &mut Visit) -> io::Result<()> {
    command(v, &[frame(7, &int(4)), frame(7, &int(8))].concat())
}

/// GOAWAY that names a stream of the server.
pub fn goaway_names_a_push(v: &mut Visit) -> io::Result<()> {
    command(v, &frame(7, &int(1)))
}

/// GOAWAY that takes the request back, and no answer.
pub fn goaway(v: &mut Visit) -> io::Result<()> {
    command(v, &frame(7, &int(0)))
}

/// A large entry, and a head that names it sixty times.
pub fn qpack_bomb(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    v.uni(&[int(2), capacity(4096), insert(b"x", &vec![b'v'; 4000])].concat())?;
    let id = v.asked()?;
    v.say(id, &referring(&[OK], 1, 128, 60))?;
    v.wait()
}

/// A head that waits for an entry that never comes.
pub fn qpack_blocked(v: &mut Visit) -> io::Result<()> {
    answer(v, &referring(&[OK], 9, 128, 1))
}

/// Entries without end.
pub fn qpack_inserts(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let encoder = v.uni(&[int(2), capacity(4096)].concat())?;
    v.asked()?;
    v.pour(encoder, |_| insert(b"name", b"value"))
}

/// A capacity that was not offered.
pub fn qpack_capacity(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    v.asked()?;
    v.uni(&[int(2), capacity(1 << 30)].concat())?;
    v.wait()
}

/// A gigabyte of zeros, compressed.
pub fn compressed_bomb(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.asked()?;
    v.say(id, &headers(&[OK, (b"content-encoding", b"zstd")]))?;
    // A frame without a content size and a window of a MiB, and then blocks that repeat one byte 128 KiB times.
    v.say(id, &frame(0, &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50]))?;
    let block: u32 = (128 << 10) << 3 | 1 << 1;
    let rle = [&block.to_le_bytes()[..3], &[0]].concat();
    v.pour(id, |_| frame(0, &rle))
}

/// A window that no client can hold.
pub fn compressed_window(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.asked()?;
    v.say(id, &headers(&[OK, (b"content-encoding", b"zstd")]))?;
    // Window descriptor 0xff: 3.75 TiB.
    v.say(id, &frame(0, &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00]))?;
    v.guest.finish(id);
    v.wait()
}

/// Content byte by byte.
pub fn dribble(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.asked()?;
    v.say(id, &headers(&[OK, (b"content-length", b"1000000")]))?;
    while v.guest.closed.is_none() && std::time::Instant::now() < v.tally.until {
        v.say(id, &frame(0, b"x"))?;
        v.guest.turn(Duration::from_millis(10))?;
    }
    Ok(())
}

/// More content than was said.
pub fn too_long(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.asked()?;
    v.say(id, &[headers(&[OK, (b"content-length", b"5")]), frame(0, b"0123456789")].concat())?;
    v.guest.finish(id);
    v.wait()
}

/// Less content than was said.
pub fn too_short(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.asked()?;
    v.say(id, &[headers(&[OK, (b"content-length", b"50")]), frame(0, b"0123456789")].concat())?;
    v.guest.finish(id);
    v.wait()
}

/// SETTINGS once more.
pub fn settings_twice(v: &mut Visit) -> io::Result<()> {
    command(v, &frame(4, b""))
}

/// The control stream ends.
pub fn control_ends(v: &mut Visit) -> io::Result<()> {
    let control = v.control()?;
    v.asked()?;
    v.guest.finish(control);
    v.wait()
}

/// Something other than SETTINGS first.
pub fn no_settings(v: &mut Visit) -> io::Result<()> {
    v.asked()?;
    v.uni(&[vec![0], frame(7, &int(0))].concat())?;
    v.wait()
}

/// A limit of pushes from a server.
pub fn push_limit(v: &mut Visit) -> io::Result<()> {
    command(v, &frame(13, &int(0)))
}

/// One-way streams of types that nobody knows.
pub fn unknown_streams(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    v.asked()?;
    v.unknown_streams()
}

/// Content before the head.
pub fn data_first(v: &mut Visit) -> io::Result<()> {
    answer(v, &frame(0, b"content"))
}

/// DATA frames of no bytes.
pub fn empty_data(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.asked()?;
    v.say(id, &headers(&[OK]))?;
    v.pour(id, |_| frame(0, b""))
}

/// Trailers beyond the limit.
pub fn trailer_bomb(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.asked()?;
    let value = vec![b'v'; 60_000];
    v.say(id, &headers(&[OK]))?;
    v.say(id, &headers(&[(b"a", &value), (b"b", &value), (b"c", &value)]))?;
    v.wait()
}

/// Redirects to the same page without end.
pub fn redirects(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    while v.goes_on() {
        let Ok(id) = v.asked() else { break };
        v.say(id, &headers(&[(b":status", b"302"), (b"location", b"/again"), (b"content-length", b"0")]))?;
        v.guest.finish(id);
        v.guest.turn(Duration::from_millis(1))?;
    }
    Ok(())
}

/// A two-way stream that a server may not open, where the client's limit has one.
pub fn own_request(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    v.asked()?;
    if let Some(id) = v.guest.open(Dir::Bi) {
        v.say(id, &headers(&[OK]))?;
    }
    v.wait()
}

/// Nothing at all after the handshake.
pub fn silence(v: &mut Visit) -> io::Result<()> {
    v.asked()?;
    v.wait()
}

/// Fields that are none, and heads that are none.
pub fn malformed(v: &mut Visit) -> io::Result<()> {
    answer(v, &headers(&[OK, (b"Large", b"1")]))
}

/// A reset in the middle of the content.
pub fn cut_off(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.asked()?;
    v.say(id, &[headers(&[OK, (b"content-length", b"1000")]), frame(0, b"0123456789")].concat())?;
    v.guest.turn(Duration::from_millis(20))?;
    v.guest.reset(id, 0x102);
    v.wait()
}

/// Datagrams that nobody asked for.
pub fn datagrams(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    v.asked()?;
    v.datagrams()
}
