//! A folder answers: whole files, parts, conditions, other codings, lists.

use std::fs;
use std::path::Path;

use http::Request;
use http_body_util::BodyExt;

use super::*;

const OLD: Duration = Duration::from_secs(3600);

struct Site {
    dir: tempfile::TempDir,
    config: config::Files,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config::Files { root: dir.path().to_owned(), listing: true, ..config::Files::default() };
        let site = Self { dir, config };
        site.write("index.html", "<p>home", OLD);
        site.write("digits.txt", "0123456789", OLD);
        site.write("sub/a.js", "let a;", OLD);
        site.write("empty", "", OLD);
        site
    }

    fn write(&self, name: &str, text: &str, age: Duration) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).unwrap();
        fs::write(&path, text).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    async fn ask(&self, method: &str, uri: &str, fields: &[(&str, &str)]) -> (u16, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (request, ()) = request.body(()).unwrap().into_parts();
        let response = Folder::open(&self.config).unwrap().answer(&request);
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        if let Some(length) = parts.headers.get(header::CONTENT_LENGTH).filter(|_| method == "GET") {
            assert_eq!(length.to_str().unwrap(), bytes.len().to_string());
        }
        (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&bytes).into())
    }

    async fn get(&self, uri: &str, fields: &[(&str, &str)]) -> (u16, HeaderMap, String) {
        self.ask("GET", uri, fields).await
    }
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn files_have_their_type_size_and_version() {
    let site = Site::new();
    site.write("x.bin", "x", OLD);
    site.write("x.wasm", "x", OLD);
    site.write("x.svg", "x", OLD);
    for (uri, kind, text) in [
        ("/", "text/html; charset=utf-8", "<p>home"),
        ("/index.html", "text/html; charset=utf-8", "<p>home"),
        ("/digits.txt?x=1", "text/plain; charset=utf-8", "0123456789"),
        ("/sub/a.js", "text/javascript; charset=utf-8", "let a;"),
        ("/empty", "application/octet-stream", ""),
        ("/x.bin", "application/octet-stream", "x"),
        ("/x.wasm", "application/wasm", "x"),
        ("/x.svg", "image/svg+xml; charset=utf-8", "x"),
    ] {
        let (status, headers, body) = site.get(uri, &[]).await;
        assert_eq!((status, body.as_str()), (200, text), "{uri}");
        assert_eq!(field(&headers, "content-type"), kind, "{uri}");
        assert_eq!(field(&headers, "accept-ranges"), "bytes");
        assert!(field(&headers, "etag").starts_with('"') && field(&headers, "last-modified").ends_with("GMT"));
        let (status, head, body) = site.ask("HEAD", uri, &[]).await;
        assert_eq!((status, body.as_str()), (200, ""));
        assert_eq!(head, headers, "{uri}");
    }
}

#[tokio::test]
async fn parts_of_a_file() {
    let site = Site::new();
    for (range, status, place, text) in [
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=-3", 206, "bytes 7-9/10", "789"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=0-99", 206, "bytes 0-9/10", "0123456789"),
        ("bytes=x", 200, "", "0123456789"),
        ("items=0-1", 200, "", "0123456789"),
    ] {
        let (found, headers, body) = site.get("/digits.txt", &[("range", range)]).await;
        assert_eq!((found, field(&headers, "content-range"), body.as_str()), (status, place, text), "{range}");
    }
    let (status, headers, _) = site.get("/digits.txt", &[("range", "bytes=10-")]).await;
    assert_eq!((status, field(&headers, "content-range")), (416, "bytes */10"));
    let (status, _, body) = site.ask("HEAD", "/digits.txt", &[("range", "bytes=0-1")]).await;
    assert_eq!((status, body.as_str()), (200, ""));

    let (status, headers, body) = site.get("/digits.txt", &[("range", "bytes=0-1, 4-5, -1")]).await;
    assert_eq!((status, field(&headers, "content-range")), (206, ""));
    let kind = field(&headers, "content-type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let parts: Vec<&str> = body.split(&format!("\r\n--{boundary}")).collect();
    assert_eq!((parts.len(), parts[0], parts[4]), (5, "", "--\r\n"));
    for (part, place, text) in [(1, "0-1", "01"), (2, "4-5", "45"), (3, "9-9", "9")] {
        let head = format!("\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-range: bytes {place}/10\r\n\r\n");
        assert_eq!(parts[part], head + text);
    }
}

#[tokio::test]
async fn conditions_spare_what_the_client_has() {
    let site = Site::new();
    let (_, headers, _) = site.get("/digits.txt", &[]).await;
    let (tag, at) = (field(&headers, "etag"), field(&headers, "last-modified"));
    for fields in [[("if-none-match", tag)], [("if-modified-since", at)]] {
        let (status, headers, body) = site.get("/digits.txt", &fields).await;
        assert_eq!((status, body.as_str(), field(&headers, "etag")), (304, "", tag));
        assert!(!headers.contains_key("content-type") && headers.contains_key("vary"));
    }
    let (status, ..) = site.get("/digits.txt", &[("if-match", "\"x\"")]).await;
    assert_eq!(status, 412);
    for (value, status) in [(tag, 206), (at, 206), ("\"x\"", 200)] {
        let fields = [("range", "bytes=0-1"), ("if-range", value)];
        assert_eq!(site.get("/digits.txt", &fields).await.0, status, "{value}");
    }
    site.write("digits.txt", "9876543210", OLD / 2);
    assert_eq!(site.get("/digits.txt", &[("if-none-match", tag)]).await.0, 200);
}

#[tokio::test]
async fn files_that_were_compressed_before_are_taken() {
    let site = Site::new();
    for (name, text) in [("br", "B"), ("zst", "Z"), ("gz", "G")] {
        site.write(&format!("digits.txt.{name}"), text, OLD / 2);
    }
    for (accept, coding, text) in [
        ("gzip, br, zstd", "br", "B"),
        ("gzip, zstd", "zstd", "Z"),
        ("gzip", "gzip", "G"),
        ("br;q=0.1, gzip", "gzip", "G"),
        ("identity", "", "0123456789"),
    ] {
        let (status, headers, body) = site.get("/digits.txt", &[("accept-encoding", accept)]).await;
        assert_eq!((status, field(&headers, "content-encoding"), body.as_str()), (200, coding, text), "{accept}");
        assert_eq!(field(&headers, "content-type"), "text/plain; charset=utf-8");
        assert_eq!(field(&headers, "vary"), "accept-encoding");
    }
    let tag = |headers: &HeaderMap| field(headers, "etag").to_owned();
    let (_, plain, _) = site.get("/digits.txt", &[]).await;
    let (_, packed, _) = site.get("/digits.txt", &[("accept-encoding", "br")]).await;
    assert_ne!(tag(&plain), tag(&packed));
    // One that is older than its file belongs to an earlier one.
    site.write("digits.txt.br", "old", OLD * 2);
    let (_, headers, _) = site.get("/digits.txt", &[("accept-encoding", "br")]).await;
    assert_eq!(field(&headers, "content-encoding"), "");
    let off = Site { config: config::Files { precompressed: false, ..site.config.clone() }, dir: site.dir };
    let (_, headers, _) = off.get("/digits.txt", &[("accept-encoding", "gzip")]).await;
    assert_eq!((field(&headers, "content-encoding"), field(&headers, "vary")), ("", ""));
}

#[tokio::test]
async fn folders_have_an_index_or_a_list_or_neither() {
    let mut site = Site::new();
    let (status, headers, _) = site.get("/sub?a=b", &[]).await;
    assert_eq!((status, field(&headers, "location")), (308, "/sub/?a=b"));
    let (_, headers, _) = site.get("//sub", &[]).await;
    assert_eq!(field(&headers, "location"), "/sub/");
    let (status, headers, body) = site.get("/sub/", &[]).await;
    assert_eq!((status, field(&headers, "content-type")), (200, "text/html; charset=utf-8"));
    assert!(body.contains("a.js") && field(&headers, "content-security-policy").contains("default-src 'none'"));
    let (_, headers, body) = site.get("/sub/", &[("accept", "application/json")]).await;
    assert_eq!(field(&headers, "content-type"), "application/json");
    assert!(body.contains("\"name\":\"a.js\""), "{body}");
    assert_eq!(site.get("/digits.txt/", &[]).await.0, 404);
    site.config.listing = false;
    assert_eq!(site.get("/sub/", &[]).await.0, 404);
    site.config.index = vec!["none".into(), "a.js".into()];
    assert_eq!(site.get("/sub/", &[]).await.2, "let a;");
}

#[tokio::test]
async fn an_application_has_one_page() {
    let mut site = Site::new();
    site.config.fallback = Some("/index.html".into());
    for (uri, accept, status) in [
        ("/some/route", "*/*", 200),
        ("/some/route.x", "text/html,*/*", 200),
        ("/missing.js", "*/*", 404),
        ("/sub/a.js", "*/*", 200),
        ("/%2e%2e/x", "text/html", 400),
    ] {
        assert_eq!(site.get(uri, &[("accept", accept)]).await.0, status, "{uri}");
    }
    assert_eq!(site.get("/some/route", &[]).await.2, "<p>home");
    site.config.fallback = Some("/gone.html".into());
    assert_eq!(site.get("/some/route", &[]).await.0, 404);
}

#[tokio::test]
async fn other_requests_are_answered_with_a_sentence() {
    let site = Site::new();
    let (status, headers, _) = site.ask("POST", "/digits.txt", &[]).await;
    assert_eq!((status, field(&headers, "allow")), (405, "GET, HEAD, OPTIONS"));
    let (status, headers, body) = site.ask("OPTIONS", "/digits.txt", &[]).await;
    assert_eq!((status, field(&headers, "allow"), body.as_str()), (204, "GET, HEAD, OPTIONS", ""));
    let (status, _, body) = site.get("/none", &[]).await;
    assert_eq!((status, body.as_str()), (404, "404 Not Found\nThere is nothing at this address.\n"));
    assert_eq!(site.get("/.hidden", &[]).await.0, 404);
    assert_eq!(site.get(&format!("/{}", "x".repeat(300)), &[]).await.0, 414);
    let pipe = site.dir.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, mode, 0).unwrap();
    assert_eq!(site.get("/pipe", &[]).await.0, 404);
}

#[tokio::test]
async fn an_answer_keeps_the_file_that_it_began_with() {
    let site = Site::new();
    let (request, ()) = Request::get("/digits.txt").body(()).unwrap().into_parts();
    let response = Folder::open(&site.config).unwrap().answer(&request);
    fs::remove_file(site.dir.path().join("digits.txt")).unwrap();
    site.write("digits.txt", "new", OLD);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "0123456789");
}
