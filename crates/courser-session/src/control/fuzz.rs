//! What must hold for any bytes on the control socket, for fuzzers and for plain tests.

use super::{FromHost, Notice, Reply, Request};

/// Decodes as a request and as what a host says.
///
/// # Panics
/// When a message is taken that encoding does not give back bit by bit, or for two things at once.
pub fn control(data: &[u8]) {
    let mut again = Vec::new();
    if let Ok(request) = Request::decode(data) {
        request.encode(&mut again);
        assert_eq!(again, data, "a request with two writings");
        assert!(FromHost::decode(data).is_err(), "both a request and an answer");
    }
    again.clear();
    match FromHost::decode(data) {
        Ok(FromHost::Reply(reply)) => {
            reply.encode(&mut again);
            assert!(Notice::decode(data).is_err() && Reply::decode(data) == Ok(reply));
        }
        Ok(FromHost::Notice(notice)) => {
            notice.encode(&mut again);
            assert!(Reply::decode(data).is_err() && Notice::decode(data) == Ok(notice));
        }
        Err(_) => return,
    }
    assert_eq!(again, data, "an answer with two writings");
}
