//! The web server behind a proxy: it answers well at `/`, and in every bad way elsewhere.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::site::{LARGE, LARGE_LEN, PAGE};

/// How much of something without end is sent at most.
const ENDLESS: usize = 32 << 20;
/// Pause of what is slow.
const SLOW: Duration = Duration::from_millis(20);

/// An origin on loopback; it serves until the process ends.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    smuggled: Arc<AtomicBool>,
}

impl Origin {
    /// Begins to listen.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let origin = Self { address: listener.local_addr()?, smuggled: Arc::default() };
        let smuggled = Arc::clone(&origin.smuggled);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let smuggled = Arc::clone(&smuggled);
                std::thread::spawn(move || connection(&stream, &smuggled));
            }
        });
        Ok(origin)
    }

    /// Whether a request came that no client was to bring this far.
    #[must_use]
    pub fn smuggled(&self) -> bool {
        self.smuggled.load(Ordering::Relaxed)
    }
}

fn connection(stream: &TcpStream, smuggled: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    while let Ok(Some(path)) = request(&mut reader, smuggled) {
        if !matches!(answer(stream, &path), Ok(true)) {
            break;
        }
    }
}

/// Reads one request; its path, or nothing at the end.
fn request(reader: &mut BufReader<&TcpStream>, smuggled: &AtomicBool) -> io::Result<Option<String>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
    let known = ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"].contains(&method);
    if !known || path.contains("smuggled") || words.next() != Some("HTTP/1.1") || words.next().is_some() {
        smuggled.store(true, Ordering::Relaxed);
    }
    let (mut length, mut chunked, mut lengths) = (0, false, 0);
    loop {
        let mut field = String::new();
        reader.read_line(&mut field)?;
        let Some((name, value)) = field.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => (length, lengths) = (value.trim().parse().unwrap_or(0), lengths + 1),
            "transfer-encoding" => chunked = value.trim() == "chunked",
            "smuggled" => smuggled.store(true, Ordering::Relaxed),
            _ => {}
        }
    }
    if lengths > 1 || lengths == 1 && chunked {
        smuggled.store(true, Ordering::Relaxed);
    }
    if chunked {
        chunks(reader)?;
    } else {
        io::copy(&mut reader.take(length), &mut io::sink())?;
    }
    Ok(Some(path))
}

fn chunks(reader: &mut BufReader<&TcpStream>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        if size == 0 {
            break;
        }
        io::copy(&mut reader.take(size + 2), &mut io::sink())?;
    }
    // Trailers, to the empty line.
    let mut line = String::from("x");
    while !line.trim().is_empty() {
        line.clear();
        reader.read_line(&mut line)?;
    }
    Ok(())
}

/// Answers; whether the connection can be used again.
fn answer(mut stream: &TcpStream, path: &str) -> io::Result<bool> {
    let ok = "HTTP/1.1 200 OK\r\n";
    let endless = |piece: &str| -> io::Result<bool> {
        let piece = piece.repeat(1000);
        for _ in 0..ENDLESS / piece.len() {
            (&*stream).write_all(piece.as_bytes())?;
        }
        Ok(false)
    };
    match path {
        "/endless-head" => {
            stream.write_all(ok.as_bytes())?;
            endless("a: 0123456789\r\n")
        }
        "/endless-line" => {
            stream.write_all(ok.as_bytes())?;
            endless("0123456789")
        }
        "/interim" => endless("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
        "/slow-head" => {
            for byte in ok.repeat(20).bytes() {
                stream.write_all(&[byte])?;
                std::thread::sleep(SLOW);
            }
            Ok(false)
        }
        "/noise" => stream.write_all(&[0x80; 5000]).map(|()| false),
        "/short" => write!(stream, "{ok}content-length: 1000\r\n\r\n0123456789").map(|()| false),
        "/long" => write!(stream, "{ok}content-length: 5\r\n\r\n{}", "0123456789".repeat(100)).map(|()| false),
        "/two-lengths" => write!(stream, "{ok}content-length: 5\r\ncontent-length: 6\r\n\r\n012345").map(|()| false),
        "/both" => {
            let fields = "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n";
            write!(stream, "{ok}{fields}3\r\nabc\r\n0\r\n\r\n").map(|()| false)
        }
        "/huge-chunk" => {
            write!(stream, "{ok}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n")?;
            endless("0123456789")
        }
        "/chunk-extension" => {
            write!(stream, "{ok}transfer-encoding: chunked\r\n\r\n5;")?;
            endless("0123456789")
        }
        "/endless-trailers" => {
            write!(stream, "{ok}transfer-encoding: chunked\r\n\r\n5\r\n01234\r\n0\r\n")?;
            endless("a: 0123456789\r\n")
        }
        "/hop" => {
            let fields = "connection: x-secret\r\nx-secret: 1\r\ncontent-length: 0\r\n\r\n";
            write!(stream, "{ok}{fields}").map(|()| true)
        }
        "/gone" => Ok(false),
        LARGE => {
            write!(stream, "{ok}content-length: {LARGE_LEN}\r\n\r\n")?;
            let piece = [b'L'; 65_536];
            (0..LARGE_LEN / piece.len()).try_for_each(|_| stream.write_all(&piece)).map(|()| true)
        }
        _ => {
            // In one piece, as a second small one would wait for an acknowledgement.
            let answer = format!("{ok}content-length: {}\r\n\r\n{PAGE}", PAGE.len());
            stream.write_all(answer.as_bytes()).map(|()| true)
        }
    }
}
