//! What hostile clients do to `courser serve`.

use std::io;

use courser_core::ids::{Dir, StreamId};
use courser_testing::web::{capacity, frame, headers, insert, int, referring, section};

use super::bytes::{head, head_with};
use super::site::{LARGE, MARK};
use super::visit::{Visit, page};

/// What fills a dynamic table of 4,096 bytes (RFC 9204 section 3.2.1).
const FILLING: usize = 4096 - 32 - 1;

/// A request of these bytes that does not end; waits for what comes of it.
fn request(v: &mut Visit, bytes: &[u8]) -> io::Result<()> {
    v.control()?;
    let id = v.request()?;
    v.say(id, bytes)?;
    v.wait()
}

/// These bytes on the control stream; waits for what comes of it.
fn command(v: &mut Visit, bytes: &[u8]) -> io::Result<()> {
    let id = v.control()?;
    v.say(id, bytes)?;
    v.wait()
}

/// Requests that are given up as soon as they were sent.
pub fn rapid_reset(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let page = page();
    let mut before: Vec<StreamId> = Vec::new();
    v.requests(|v, id, _| {
        v.guest.write(id, &page);
        v.guest.finish(id);
        before.push(id);
        if before.len() >= 8 {
            before.drain(..).for_each(|id| v.guest.abandon(id, 0x10c));
        }
    })
}

/// Heads beyond every limit.
pub fn header_bomb(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let value = vec![b'v'; 60_000];
    let bomb = headers(&head_with("GET", "/", &[(b"a", &value), (b"b", &value), (b"c", &value)]));
    while v.goes_on() {
        v.refused("a head of 180 kB", &bomb)?;
    }
    Ok(())
}

/// Thousands of short fields.
pub fn field_bomb(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let fields: Vec<_> = (0..1500).map(|_| (&b"a"[..], &b""[..])).collect();
    let bomb = headers(&head_with("GET", "/", &fields));
    while v.goes_on() {
        v.refused("a head of 1,500 fields", &bomb)?;
    }
    Ok(())
}

/// One large entry in the dynamic table, and heads that name it sixty times.
pub fn qpack_bomb(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let encoder = [int(2), capacity(4096), insert(b"x", &vec![b'v'; FILLING])].concat();
    v.uni(&encoder)?;
    let bomb = referring(&head("GET", "/"), 1, 128, 60);
    while v.goes_on() {
        v.refused("a head that unpacks to 240 kB", &bomb)?;
    }
    Ok(())
}

/// More streams than may wait for the dynamic table.
pub fn qpack_blocked(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let blocked = referring(&head("GET", "/"), 9, 128, 1);
    v.requests(|v, id, _| _ = v.guest.write(id, &blocked))
}

/// Entries that nobody refers to.
pub fn qpack_inserts(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.uni(&[int(2), capacity(4096)].concat())?;
    v.pour(id, |_| insert(b"name", b"value"))
}

/// One entry doubled over and over.
pub fn qpack_duplicates(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.uni(&[int(2), capacity(4096), insert(b"x", &vec![b'v'; 1900])].concat())?;
    v.pour(id, |_| vec![0])
}

/// The capacity set to and fro, which empties the table each time.
pub fn qpack_capacities(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.uni(&[int(2), capacity(4096)].concat())?;
    v.pour(id, |_| [capacity(0), capacity(4096), insert(b"name", b"value")].concat())
}

/// A capacity that was not offered.
pub fn qpack_capacity(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    v.uni(&[int(2), capacity(1 << 30)].concat())?;
    v.wait()
}

/// Acknowledgements of sections that never were.
pub fn qpack_acks(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    v.uni(&[int(3), vec![0x80; 100]].concat())?;
    v.wait()
}

/// Cancellations of streams that never were.
pub fn qpack_cancellations(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.uni(&int(3))?;
    v.pour(id, |_| vec![0x44])
}

/// Heads byte by byte on all streams.
pub fn slow_heads(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let page = page();
    let mut open = Vec::new();
    for at in 0..page.len() - 1 {
        while let Some(id) = v.guest.open(Dir::Bi) {
            v.guest.write(id, &page[..at]);
            open.push(id);
        }
        for id in &open {
            v.guest.write(*id, &page[at..=at]);
            v.tally.sent += 1;
        }
        v.guest.turn(std::time::Duration::from_millis(20))?;
        if !v.goes_on() {
            break;
        }
    }
    v.wait()
}

/// Uploads that never get on, on all streams.
pub fn slow_bodies(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let begin = headers(&head_with("POST", "/upload", &[(b"content-length", b"1000000")]));
    let mut open = Vec::new();
    while v.goes_on() {
        while let Some(id) = v.guest.open(Dir::Bi) {
            v.guest.write(id, &begin);
            open.push(id);
        }
        for id in &open {
            v.guest.write(*id, &frame(0, b"x"));
            v.tally.sent += 1;
        }
        v.guest.turn(std::time::Duration::from_millis(5))?;
    }
    Ok(())
}

/// DATA frames of no bytes.
pub fn empty_data(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.post()?;
    v.pour(id, |_| frame(0, b""))
}

/// Frames of reserved types on a request.
pub fn grease_on_a_request(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.request()?;
    v.pour(id, |n| frame(0x21 + 0x1f * (n % 1000), b""))
}

/// Frames of reserved types on the control stream.
pub fn grease_on_control(v: &mut Visit) -> io::Result<()> {
    let id = v.control()?;
    v.pour(id, |n| frame(0x21 + 0x1f * (n % 1000), b"0123456789"))
}

/// SETTINGS once more.
pub fn settings_twice(v: &mut Visit) -> io::Result<()> {
    command(v, &frame(4, b""))
}

/// A setting of HTTP/2.
pub fn settings_of_old(v: &mut Visit) -> io::Result<()> {
    v.uni(&[0, 4, 2, 2, 0])?;
    v.wait()
}

/// SETTINGS of a megabyte.
pub fn settings_without_end(v: &mut Visit) -> io::Result<()> {
    let id = v.uni(&[vec![0, 4], int(1 << 20)].concat())?;
    v.pour(id, |n| [int(0x1000 + n), int(n)].concat())
}

/// The control stream ends.
pub fn control_ends(v: &mut Visit) -> io::Result<()> {
    let id = v.control()?;
    v.guest.finish(id);
    v.wait()
}

/// The control stream is reset.
pub fn control_is_reset(v: &mut Visit) -> io::Result<()> {
    let id = v.control()?;
    // A reset may overtake the bytes that say which stream it is: an answer shows that they were read.
    v.exchange(&page())?;
    v.guest.reset(id, 0);
    v.wait()
}

/// A second control stream.
pub fn two_controls(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    v.control()?;
    v.wait()
}

/// GOAWAY that takes back what an earlier one said.
pub fn goaway_rises(v: &mut Visit) -> io::Result<()> {
    command(v, &[frame(7, &int(4)), frame(7, &int(8))].concat())
}

/// GOAWAY over and over.
pub fn goaways(v: &mut Visit) -> io::Result<()> {
    let id = v.control()?;
    v.pour(id, |_| frame(7, &int(0)))
}

/// A limit of pushes that falls.
pub fn push_limit_falls(v: &mut Visit) -> io::Result<()> {
    command(v, &[frame(13, &int(10)), frame(13, &int(5))].concat())
}

/// Limits of pushes over and over.
pub fn push_limits(v: &mut Visit) -> io::Result<()> {
    let id = v.control()?;
    v.pour(id, |n| frame(13, &int(n)))
}

/// A push from a client.
pub fn push_from_client(v: &mut Visit) -> io::Result<()> {
    request(v, &frame(5, &[int(0), section(&head("GET", "/"))].concat()))
}

/// A cancellation of a push that never was.
pub fn cancel_push(v: &mut Visit) -> io::Result<()> {
    command(v, &frame(3, &int(7)))
}

/// Priorities of requests that never come.
pub fn priorities(v: &mut Visit) -> io::Result<()> {
    let id = v.control()?;
    v.pour(id, |n| frame(0xf_0700, &[int(4 * (n % 100)), b"u=1".to_vec()].concat()))
}

/// One-way streams of types that nobody knows.
pub fn unknown_streams(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    v.unknown_streams()
}

/// Downloads on all streams, of which nothing is read.
pub fn unread(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let large = headers(&head("GET", LARGE));
    while v.goes_on() {
        while let Some(id) = v.guest.open(Dir::Bi) {
            v.guest.write(id, &large);
            v.guest.finish(id);
            v.tally.sent += 1;
        }
        v.guest.turn(std::time::Duration::from_millis(5))?;
    }
    Ok(())
}

/// Heads and contents that two readers could take for different requests.
pub fn smuggling(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let body =
        |fields: &[(&[u8], &[u8])], body: &[u8]| [headers(&head_with("POST", "/", fields)), frame(0, body)].concat();
    let get = |fields: &[(&[u8], &[u8])]| headers(&head_with("GET", "/", fields));
    let rows: [(&str, Vec<u8>); 20] = [
        ("content beyond its length", body(&[(b"content-length", b"3")], b"12345")),
        ("content below its length", body(&[(b"content-length", b"30")], b"12345")),
        ("two lengths", body(&[(b"content-length", b"5"), (b"content-length", b"6")], b"12345")),
        ("a length with a sign", body(&[(b"content-length", b"+5")], b"12345")),
        ("a length that is no number", body(&[(b"content-length", b"5, 5x")], b"12345")),
        ("chunks", body(&[(b"transfer-encoding", b"chunked")], b"0\r\n\r\n")),
        ("connection", get(&[(b"connection", b"close")])),
        ("keep-alive", get(&[(b"keep-alive", b"1")])),
        ("upgrade", get(&[(b"upgrade", b"h2c")])),
        ("proxy-connection", get(&[(b"proxy-connection", b"close")])),
        ("te that is not trailers", get(&[(b"te", b"gzip")])),
        ("a large letter", get(&[(b"Host", b"localhost")])),
        ("a line feed in a value", get(&[(b"a", b"b\r\nc: d")])),
        ("a NUL in a value", get(&[(b"a", b"b\0")])),
        ("a blank in a name", get(&[(b"a b", b"c")])),
        ("an empty name", get(&[(b"", b"c")])),
        ("a host that is another", get(&[(b"host", b"example.org")])),
        ("a line feed in the path", headers(&head("GET", "/ HTTP/1.1\r\nhost: a\r\n\r\nGET /"))),
        ("a blank in the method", headers(&head("GET /x", "/"))),
        ("a pseudo-header field behind others", headers(&[(b"a", b"b"), (b":method", b"GET"), (b":path", b"/")])),
    ];
    for (what, request) in rows.iter().cycle() {
        if !v.goes_on() {
            break;
        }
        v.refused(what, request)?;
    }
    Ok(())
}

/// CONNECT to anywhere.
pub fn connects(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let connect = headers(&[(b":method", b"CONNECT"), (b":authority", b"127.0.0.1:1")]);
    while v.goes_on() {
        v.refused("CONNECT", &connect)?;
    }
    Ok(())
}

/// Extended CONNECT of every kind, and capsules behind it.
pub fn tunnels(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let kinds = ["websocket", "webtransport", "connect-udp", "connect-ip", "nothing"];
    let mut n = 0;
    while v.goes_on() {
        let mut fields = head("CONNECT", "/");
        fields.push((b":protocol", kinds[n % kinds.len()].as_bytes()));
        let capsules = frame(0, &[frame(0x78ae, &[0; 100]), frame(0, b"datagram")].concat());
        v.refused("extended CONNECT", &[headers(&fields), capsules].concat())?;
        n += 1;
    }
    Ok(())
}

/// Datagrams for requests that are not there.
pub fn datagrams(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    v.datagrams()
}

/// A thousand ranges of one file that overlap.
pub fn ranges(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let all = format!("bytes={}", vec!["0-"; 1000].join(","));
    let bomb = headers(&head_with("GET", LARGE, &[(b"range", all.as_bytes())]));
    while v.goes_on() {
        let answer = v.exchange(&bomb)?;
        if answer.body.len() > super::site::LARGE_LEN + 100_000 {
            return Err(io::Error::other(format!("{} bytes for one file", answer.body.len())));
        }
    }
    Ok(())
}

/// Paths that lead out of the folder.
pub fn traversal(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let rows = [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/a/../../secret.txt",
        "/..\\secret.txt",
        "/%5c..%5csecret.txt",
        "/%252e%252e/secret.txt",
        "//../secret.txt",
        "/./../secret.txt",
        "/..;/secret.txt",
        "/%00/../secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/outside/secret.txt",
        "/../site/../secret.txt",
        "/.hidden",
        "/index.html/../../secret.txt",
        "/%2E%2E/%2e./secret.txt",
    ];
    for path in rows.iter().cycle() {
        if !v.goes_on() {
            break;
        }
        let answer = v.exchange(&headers(&head("GET", path)))?;
        if answer.body.windows(MARK.len()).any(|w| w == MARK.as_bytes()) {
            return Err(io::Error::other(format!("{path} leads out of the folder")));
        }
    }
    Ok(())
}

/// Trailers beyond every limit.
pub fn trailer_bomb(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let value = vec![b'v'; 60_000];
    let bomb = [headers(&head("POST", "/")), headers(&[(b"a", &value), (b"b", &value), (b"c", &value)])].concat();
    while v.goes_on() {
        v.refused("trailers of 180 kB", &bomb)?;
    }
    Ok(())
}

/// Trailers, and trailers again.
pub fn trailers_again(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.post()?;
    v.say(id, &[headers(&[(b"a", b"b")]), headers(&[(b"a", b"b")])].concat())?;
    v.wait()
}

/// Content before any head.
pub fn data_first(v: &mut Visit) -> io::Result<()> {
    request(v, &frame(0, b"content"))
}

/// A stream that ends in the middle of a frame.
pub fn half_frame(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.request()?;
    let page = page();
    v.say(id, &page[..page.len() - 3])?;
    v.guest.finish(id);
    v.wait()
}

/// A frame whose length is the largest there is, bit by bit.
pub fn endless_frame(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.post()?;
    v.say(id, &[int(0), int(u64::MAX)].concat())?;
    v.pour(id, |_| vec![0; 1000])
}

/// A frame of HTTP/2 on a request.
pub fn frame_of_old(v: &mut Visit) -> io::Result<()> {
    request(v, &frame(2, b"12345"))
}

/// As many requests for a page as there can be.
pub fn pages(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let page = page();
    let mut open: Vec<StreamId> = Vec::new();
    let mut bytes = Vec::new();
    v.requests(|v, id, _| {
        v.guest.write(id, &page);
        v.guest.finish(id);
        open.push(id);
        open.retain(|id| v.guest.read(*id, &mut bytes).is_none());
        bytes.clear();
    })
}

/// No control stream at all, and requests nevertheless.
pub fn no_control(v: &mut Visit) -> io::Result<()> {
    while v.goes_on() {
        let answer = v.exchange(&page())?;
        if !answer.fine && v.guest.closed.is_none() {
            return Err(io::Error::other("SETTINGS may come late, and a request need not wait for them"));
        }
    }
    Ok(())
}

/// Content for a request that is answered without it.
pub fn late_bytes(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let id = v.post()?;
    v.pour(id, |_| frame(0, &[0; 1000]))
}
