//! What a peer must not send, and what it gets for that: a table of requests, responses, streams and datagrams.
//!
//! Each row is played to a fresh connection twice: in whole pieces, and byte by byte. A connection error has to close the
//! transport with the code; a stream error has to give up that stream with the code, and leave the connection alone.

#![allow(clippy::unwrap_used)]

mod bytes;
mod control;
mod heads;
mod play;
mod streams;

use play::{Expect, Row, play};

/// Plays rows; says all that went wrong at once.
fn check(rows: Vec<Row>) -> usize {
    let mut wrong = Vec::new();
    for row in &rows {
        for piece in [usize::MAX, 1] {
            let got = play(row, piece);
            if got != row.expect {
                wrong.push(format!("{}: {got:?} instead of {:?} in pieces of {piece}", row.name, row.expect));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    rows.iter().filter(|row| row.expect != Expect::Fine).count()
}

#[test]
fn malformed_heads_are_stream_errors_and_good_ones_are_none() {
    let count = check(heads::requests()) + check(heads::responses()) + check(heads::trailers());
    assert!(count >= 139, "{count} malformed heads");
}

#[test]
fn frames_out_of_place_on_request_streams_have_their_codes() {
    let count = check(streams::at_server()) + check(streams::at_client());
    assert!(count >= 86, "{count} rows");
}

#[test]
fn control_streams_and_other_streams_of_one_way_have_their_codes() {
    let count = check(control::frames()) + check(control::streams());
    assert!(count >= 120, "{count} rows");
}

#[test]
fn every_byte_in_every_place_of_a_name_and_a_value_is_taken_or_refused_alike_in_heads_and_trailers() {
    let cells = bytes::names_and_values();
    assert_eq!(cells, 4 * 256 * 4 * 4);
}

#[test]
fn every_byte_in_method_scheme_authority_path_and_status_has_its_answer() {
    assert_eq!(bytes::targets(), 256 * 7);
}

#[test]
fn a_capital_in_a_name_that_means_something_is_refused_in_heads_and_trailers() {
    let cells = bytes::cases();
    assert!(cells > 200, "{cells}");
}

#[test]
fn content_of_another_length_than_declared_is_refused_however_it_is_cut_and_ended() {
    let cells = bytes::lengths();
    assert!(cells > 1000, "{cells}");
}
