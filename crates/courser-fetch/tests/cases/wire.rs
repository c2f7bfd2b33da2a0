//! HTTP/1.1 byte by byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use courser_fetch::{Done, Error, Sink};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

/// Reads a request's header section.
async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(b) => text.push(b),
            Err(_) => break,
        }
    }
    String::from_utf8(text).unwrap()
}

/// What becomes of a job whose server says just this and closes, in good order or not.
async fn told(says: &'static [u8], in_good_order: bool) -> Done {
    let addr = raw(move |mut stream, _| async move {
        request(&mut stream).await;
        stream.write_all(says).await.unwrap();
        stream.flush().await.unwrap();
        if in_good_order {
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f");
    let done =
        fetch(&client(|_| {}), &job(&format!("https://localhost:{}/", addr.port()), Sink::File(file.clone()))).await;
    assert_eq!(file.exists(), done.failed.is_none());
    done
}

#[tokio::test]
async fn informational_answers_come_before_the_answer() {
    let done = told(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        true,
    )
    .await;
    assert_eq!((code(&done), done.size), (0, 2), "{:?}", done.failed);
    let head = done.head.unwrap();
    assert_eq!((head.status.as_u16(), head.headers.contains_key("link")), (200, false));
    let hints = head.informational.iter().find(|i| i.status == 103).unwrap();
    assert_eq!(hints.headers["link"], "</x>");
}

#[tokio::test]
async fn of_informational_answers_without_end_the_first_are_kept() {
    let many = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(1_000);
    let says = [many, b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()].concat();
    let done = told(says.leak(), true).await;
    assert_eq!((code(&done), done.head.unwrap().informational.len()), (0, 16), "{:?}", done.failed);
}

#[tokio::test]
async fn bodies_end_where_they_were_told_to() {
    let short = told(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", true).await;
    assert!(matches!(short.failed, Some(Error::Cut { got: 5, expected: Some(10), .. })), "{:?}", short.failed);
    let chunks = told(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n", true).await;
    assert_eq!(code(&chunks), 1, "{:?}", chunks.failed);
    let whole = told(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n", true).await;
    assert_eq!((code(&whole), whole.size), (0, 5));
    // Without a length the end of the connection is the end of the body, when TLS says that it is one.
    let closed = told(b"HTTP/1.1 200 OK\r\n\r\nall", true).await;
    assert_eq!((code(&closed), closed.size), (0, 3), "{:?}", closed.failed);
    let torn = told(b"HTTP/1.1 200 OK\r\n\r\nall", false).await;
    assert_eq!(code(&torn), 1, "{:?}", torn.failed);
}

#[tokio::test]
async fn what_is_no_http_is_code_6() {
    for says in [
        &b"220 mail.example ESMTP\r\n"[..],
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    ] {
        let done = told(says, true).await;
        assert_eq!(code(&done), 6, "{:?}", done.failed);
    }
    assert_eq!(code(&told(b"", true).await), 6);
}

#[tokio::test]
async fn a_connection_that_closed_while_it_waited_is_replaced() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let addr = raw(move |mut stream, _| {
        let count = count.clone();
        async move {
            // One request a connection, without saying so.
            request(&mut stream).await;
            count.fetch_add(1, Ordering::SeqCst);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            stream.flush().await.unwrap();
            let _ = request(&mut stream).await;
        }
    })
    .await;
    let c = client(|_| {});
    let get = job(&format!("https://localhost:{}/", addr.port()), Sink::Nothing);
    for n in 1..=3 {
        let done = fetch(&c, &get).await;
        assert_eq!((code(&done), done.tries), (0, 1), "{:?}", done.failed);
        assert_eq!(served.load(Ordering::SeqCst), n);
    }
}

#[tokio::test]
async fn a_host_field_names_the_server() {
    let (tell, mut heard) = tokio::sync::mpsc::channel(1);
    let addr = raw(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            tell.send(request(&mut stream).await).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            stream.flush().await.unwrap();
        }
    })
    .await;
    let port = addr.port();
    let done = fetch(&client(|_| {}), &job(&format!("https://localhost:{port}/a?b#c"), Sink::Nothing)).await;
    assert_eq!(code(&done), 0, "{:?}", done.failed);
    let text = heard.recv().await.unwrap().to_lowercase();
    assert!(
        text.starts_with("get /a?b http/1.1\r\n") && text.contains(&format!("host: localhost:{port}\r\n")),
        "{text}"
    );
}
