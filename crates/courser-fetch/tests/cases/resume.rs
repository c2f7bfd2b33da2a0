//! What an earlier run left.

use std::path::Path;

use courser_fetch::{Done, Sink};
use http::Response;

use crate::over_each;
use crate::support::*;

const SIZE: usize = 100_000;

/// The beginning that a run leaves which was killed.
fn leave(folder: &Path, url: &str, bytes: usize, validator: &str) {
    std::fs::write(folder.join("f.part"), pattern(bytes)).unwrap();
    let note = serde_json::json!({ "url": url, "validator": validator });
    std::fs::write(folder.join("f.part.json"), note.to_string()).unwrap();
}

/// A server that has one version of the file and knows ranges.
fn versioned(tag: &'static str) -> Handler {
    at_once(move |r| {
        let all = pattern(SIZE);
        let same = r.headers().get("if-range").is_some_and(|v| v == tag);
        let from: Option<usize> = r
            .headers()
            .get("range")
            .and_then(|v| v.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        match from {
            Some(from) if same && from < SIZE => {
                let range = format!("bytes {from}-{}/{SIZE}", SIZE - 1);
                answer(206, &[("etag", tag), ("content-range", &range)], all.slice(from..))
            }
            Some(_) if same => answer(416, &[("content-range", &format!("bytes */{SIZE}"))], ""),
            _ => answer(200, &[("etag", tag)], all),
        }
    })
}

async fn resumed(kind: Kind, server: &Server, have: usize, validator: &str) -> (Done, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let url = server.url("/f");
    leave(folder.path(), &url, have, validator);
    let done = fetch(&client_of(kind, |_| {}), &job(&url, Sink::File(folder.path().join("f")))).await;
    if done.failed.is_none() {
        assert!(std::fs::read(folder.path().join("f")).unwrap() == pattern(SIZE), "the bytes differ");
    }
    (done, names(folder.path()))
}

over_each! {
    async fn only_the_rest_is_fetched(kind: Kind) {
        let server = Server::start(kind, versioned("\"v1\"")).await;
        let (done, names) = resumed(kind, &server, 60_000, "\"v1\"").await;
        assert_eq!((code(&done), done.resumed_from, done.size), (0, 60_000, SIZE as u64), "{:?}", done.failed);
        assert_eq!((names, server.requests().len()), (vec!["f".to_owned()], 1));
    }

    async fn a_changed_file_starts_over(kind: Kind) {
        let server = Server::start(kind, versioned("\"v2\"")).await;
        let (done, names) = resumed(kind, &server, 60_000, "\"v1\"").await;
        assert_eq!((code(&done), done.resumed_from, server.requests().len()), (0, 0, 1), "{:?}", done.failed);
        assert_eq!(names, ["f"]);
    }

    async fn a_file_that_was_whole_needs_only_its_name(kind: Kind) {
        let server = Server::start(kind, versioned("\"v1\"")).await;
        let (done, names) = resumed(kind, &server, SIZE, "\"v1\"").await;
        assert_eq!((code(&done), done.resumed_from, server.requests().len()), (0, SIZE as u64, 1), "{:?}", done.failed);
        assert_eq!(names, ["f"]);
    }

    async fn more_than_the_whole_starts_over(kind: Kind) {
        let server = Server::start(kind, versioned("\"v1\"")).await;
        let (done, _) = resumed(kind, &server, SIZE + 1, "\"v1\"").await;
        assert_eq!((code(&done), done.resumed_from, server.requests().len()), (0, 0, 2), "{:?}", done.failed);
    }

    async fn a_server_without_ranges_sends_all(kind: Kind) {
        let server = Server::start(kind, at_once(|_| answer(200, &[], pattern(SIZE)))).await;
        let (done, names) = resumed(kind, &server, 60_000, "\"v1\"").await;
        assert_eq!((code(&done), done.resumed_from, names), (0, 0, vec!["f".to_owned()]));
    }

    async fn a_range_that_does_not_fit_is_not_believed(kind: Kind) {
        for (range, tag) in [("bytes 50000-99999/100000", "\"v1\""), ("bytes 60000-99998/100000", "\"v1\""), ("bytes 60000-99999/100000", "\"v2\""), ("nonsense", "\"v1\"")] {
            let server = Server::start(kind, at_once(move |r| -> Response<Pieces> {
                match r.headers().get("range") {
                    Some(_) => answer(206, &[("content-range", range), ("etag", tag)], pattern(40_000)),
                    None => answer(200, &[("etag", tag)], pattern(SIZE)),
                }
            })).await;
            let (done, names) = resumed(kind, &server, 60_000, "\"v1\"").await;
            assert_eq!((code(&done), done.resumed_from, names.len()), (0, 0, 1), "{range}: {:?}", done.failed);
            assert_eq!(server.requests().len(), 2, "{range}");
        }
    }

    async fn a_date_of_change_serves_as_well(kind: Kind) {
        const CHANGED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        let server = Server::start(kind, at_once(|r| {
            assert_eq!(r.headers()["if-range"], CHANGED);
            answer(206, &[("last-modified", CHANGED), ("content-range", "bytes 60000-99999/100000")], pattern(SIZE).slice(60_000..))
        })).await;
        let (done, _) = resumed(kind, &server, 60_000, CHANGED).await;
        assert_eq!((code(&done), done.resumed_from), (0, 60_000), "{:?}", done.failed);
    }

    async fn nothing_is_resumed_when_that_is_not_wanted(kind: Kind) {
        let server = Server::start(kind, versioned("\"v1\"")).await;
        let folder = tempfile::tempdir().unwrap();
        for compressed in [true, false] {
            leave(folder.path(), &server.url("/f"), 60_000, "\"v1\"");
            let c = client_of(kind, |o| (o.compressed, o.resume) = (compressed, compressed));
            let done = fetch(&c, &job(&server.url("/f"), Sink::File(folder.path().join("f")))).await;
            assert_eq!((code(&done), done.resumed_from), (0, 0), "{:?}", done.failed);
            assert!(server.requests().iter().all(|r| !r.headers.contains_key("range")));
        }
    }
}
