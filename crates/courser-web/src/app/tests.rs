//! Requests find their site, whoever carries them.

use http_body_util::{BodyExt, Empty};

use super::*;
use crate::config::Format;

fn peer() -> Peer {
    Peer { remote: ([192, 0, 2, 7], 1234).into(), port: 8443, is_secure: true }
}

struct Place {
    dir: tempfile::TempDir,
    app: Arc<App>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two", "rest"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("index.html"), name).unwrap();
        }
        let text = r#"
            [log]
            access = "LOG"
            format = "json"
            [[site]]
            hosts = ["one.example", "*.one.example"]
            [site.files]
            root = "DIR/one"
            [site.headers]
            x-frame-options = "DENY"
            etag = ""
            [[site]]
            hosts = ["two.example"]
            [site.files]
            root = "DIR/two"
        "#;
        let dir_text = dir.path().to_str().unwrap();
        let log = dir.path().join("log");
        let text = text.replace("DIR", dir_text).replace("LOG", log.to_str().unwrap());
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.log.format, Format::Json);
        Self { dir, app: App::open(&config).unwrap() }
    }

    async fn ask(&self, request: http::request::Builder) -> (u16, HeaderMap, String) {
        let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let response = Arc::clone(&self.app).answer(request.body(empty).unwrap(), peer()).await;
        let (parts, body) = response.into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8(text.to_vec()).unwrap())
    }

    fn log(&self) -> Vec<serde_json::Value> {
        self.app.log().flush();
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn a_site_is_found_by_the_name_that_is_asked() {
    let place = Place::new();
    for (version, uri, host, status, text) in [
        (Version::HTTP_11, "/", Some("one.example"), 200, "one"),
        (Version::HTTP_11, "/", Some("ONE.example.:8443"), 200, "one"),
        (Version::HTTP_11, "/", Some("a.one.example"), 200, "one"),
        (Version::HTTP_11, "/", Some("a.b.one.example"), 421, "No site"),
        (Version::HTTP_11, "/", Some("xone.example"), 421, "No site"),
        (Version::HTTP_11, "/", Some("two.example"), 200, "two"),
        (Version::HTTP_11, "/", Some("[::1]:1"), 421, "No site"),
        (Version::HTTP_11, "/", None, 400, "names no host"),
        (Version::HTTP_11, "/", Some(""), 400, "The Host field is none"),
        (Version::HTTP_11, "/", Some("a b"), 400, "The Host field is none"),
        (Version::HTTP_11, "/", Some("u@two.example"), 400, "A user"),
        (Version::HTTP_11, "http://two.example/", Some("one.example"), 200, "two"),
        (Version::HTTP_2, "https://two.example/", None, 200, "two"),
        (Version::HTTP_2, "https://two.example/", Some("two.example"), 200, "two"),
        (Version::HTTP_2, "https://two.example/", Some("one.example"), 400, "another host"),
        (Version::HTTP_3, "https://one.example/", None, 200, "one"),
        (Version::HTTP_10, "/", None, 421, "No site"),
    ] {
        let mut request = Request::builder().version(version).uri(uri);
        request = host.into_iter().fold(request, |r, host| r.header("host", host));
        let (found, _, body) = place.ask(request).await;
        assert!(found == status && body.contains(text), "{version:?} {uri} {host:?}: {found} {body}");
    }
    let twice = Request::builder().uri("/").header("host", "one.example").header("host", "one.example");
    assert_eq!(place.ask(twice).await.0, 400);
}

#[tokio::test]
async fn answers_get_the_fields_of_their_site_and_the_offer_of_http3() {
    let place = Place::new();
    let request = |version| Request::builder().version(version).uri("https://one.example/");
    let (_, headers, _) = place.ask(request(Version::HTTP_2)).await;
    assert_eq!(headers["x-frame-options"], "DENY");
    assert!(!headers.contains_key("etag") && headers.contains_key("date") && !headers.contains_key("alt-svc"));
    place.app.offer_quic([8443]);
    let (_, headers, _) = place.ask(request(Version::HTTP_2)).await;
    assert_eq!(headers["alt-svc"], "h3=\":8443\"; ma=86400");
    let (_, headers, _) = place.ask(request(Version::HTTP_3)).await;
    assert!(!headers.contains_key("alt-svc"));
    let (_, headers, _) = place.ask(Request::builder().uri("https://two.example/")).await;
    assert!(!headers.contains_key("x-frame-options") && headers.contains_key("etag"));
}

#[tokio::test]
async fn each_request_is_logged_when_it_is_over() {
    let place = Place::new();
    let one = || Request::builder().uri("https://one.example/?q").version(Version::HTTP_3).header("user-agent", "A");
    place.ask(one()).await;
    place.ask(Request::builder().method("HEAD").uri("https://two.example/")).await;
    // A client that goes before it has all of it, and one that goes before it has anything.
    let empty = || Empty::new().map_err(|never| match never {}).boxed_unsync();
    drop(Arc::clone(&place.app).answer(one().body(empty()).unwrap(), peer()).await);
    place.app.metrics.begin();
    let (parts, ()) = one().body(()).unwrap().into_parts();
    drop(Tally::begin(&place.app, &parts, peer()));
    let log = place.log();
    let found: Vec<_> =
        log.iter().map(|l| (&l["status"], &l["bytes"], &l["complete"])).map(|f| format!("{f:?}")).collect();
    let expected = [(200, 3, true), (200, 0, true), (200, 0, false), (499, 0, false)];
    let expected = expected.map(|(status, bytes, complete)| {
        let value = |n: u64| serde_json::Value::from(n);
        format!("{:?}", (&value(status), &value(bytes), &serde_json::Value::from(complete)))
    });
    assert_eq!(found, expected);
    assert_eq!(
        (&log[0]["target"], &log[0]["version"], &log[0]["remote"]),
        (&"/?q".into(), &"HTTP/3".into(), &"192.0.2.7".into())
    );
    let text = place.app.metrics.text();
    assert!(text.contains("version=\"3\",class=\"2xx\"} 2") && text.contains("broken_total 2"), "{text}");
}

#[tokio::test]
async fn sites_are_replaced_as_a_whole() {
    let place = Place::new();
    let root = place.dir.path().join("rest");
    let text = format!("[[site]]\n[site.files]\nroot = {root:?}");
    let config = Config::parse(&text).unwrap();
    place.app.replace(Sites::open(&config).unwrap());
    let ask = || Request::builder().uri("https://whoever.example/");
    assert_eq!(place.ask(ask()).await.2, "rest");
    let bad = Config::parse("[[site]]\n[site.files]\nroot = \"/nowhere/at/all\"").unwrap();
    assert!(Sites::open(&bad).unwrap_err().to_string().contains("/nowhere/at/all"));
    assert_eq!(place.ask(ask()).await.2, "rest");
}
