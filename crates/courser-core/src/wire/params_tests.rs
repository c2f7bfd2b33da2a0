//! Tests of transport parameters.

use proptest::prelude::*;

use super::*;
use crate::wire::testing::hex;

fn code(hexed: &str, sender: Side) -> Option<TransportCode> {
    decode(&hex(hexed), sender).err().map(|v| v.code)
}

const ERROR: Option<TransportCode> = Some(TransportCode::TRANSPORT_PARAMETER_ERROR);

fn encoded(params: &TransportParams, side: Side, random: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode(params, side, random, &mut out);
    out
}

/// Parameters of a server with everything in it.
fn full() -> TransportParams {
    TransportParams {
        original_dcid: Cid::new(&[1; 8]),
        max_idle_timeout_ms: 30_000,
        reset_token: Some(ResetToken([2; 16])),
        max_udp_payload: 1472,
        max_data: 1 << 20,
        max_stream_data_bidi_local: 1 << 18,
        max_stream_data_bidi_remote: 1 << 17,
        max_stream_data_uni: 1 << 16,
        max_streams_bidi: 100,
        max_streams_uni: STREAMS_MAX,
        ack_delay_exponent: 20,
        max_ack_delay_ms: (1 << 14) - 1,
        disable_active_migration: true,
        preferred_address: Some(PreferredAddress {
            v4: Some("192.0.2.1:443".parse().unwrap()),
            v6: Some("[2001:db8::1]:8443".parse().unwrap()),
            cid: Cid::new(&[3; 20]).unwrap(),
            token: ResetToken([4; 16]),
        }),
        active_cid_limit: 8,
        initial_scid: Cid::new(&[5; 8]),
        retry_scid: Some(Cid::EMPTY),
        max_datagram_frame: 65_535,
        grease_quic_bit: true,
        version_information: Some(VersionInformation {
            chosen: Version::V1,
            available: vec![Version::V2, Version::V1],
        }),
        min_ack_delay_us: Some(1000),
        reset_stream_at: true,
    }
}

#[test]
fn the_golden_parameters_of_a_client() {
    let params = TransportParams {
        max_idle_timeout_ms: 30_000,
        max_data: 1 << 20,
        ack_delay_exponent: 3,
        grease_quic_bit: true,
        initial_scid: Cid::new(&[1, 2]),
        version_information: Some(VersionInformation { chosen: Version::V1, available: vec![Version::V1] }),
        ..TransportParams::default()
    };
    let golden = "0104 80007530  0404 80100000  6ab2 00  0f02 0102  1108 00000001 00000001  1b00";
    assert_eq!(encoded(&params, Side::Client, 0), hex(golden));
    assert_eq!(decode(&hex(golden), Side::Client), Ok(params));
}

#[test]
fn everything_is_read_as_written() {
    for random in [0, 1, 7, u64::MAX, 0x1234_5678_9abc_def5] {
        assert_eq!(decode(&encoded(&full(), Side::Server, random), Side::Server), Ok(full()));
    }
    let defaults = TransportParams::default();
    assert_eq!(decode(&[], Side::Client), Ok(defaults.clone()));
    // Nothing but the reserved parameter.
    assert_eq!(encoded(&defaults, Side::Server, 0), hex("1b00"));
}

#[test]
fn a_client_leaves_out_what_only_servers_send() {
    //= rfc9000#18.2-1 type=test
    //= rfc9000#18.2-9 type=test
    let bytes = encoded(&full(), Side::Client, 5);
    let read = decode(&bytes, Side::Client).unwrap();
    assert_eq!(
        (read.original_dcid, read.reset_token, read.preferred_address, read.retry_scid),
        (None, None, None, None)
    );
    assert_eq!(read.initial_scid, full().initial_scid);
}

#[test]
fn a_client_that_sends_what_only_servers_send_is_refused() {
    //= rfc9000#18.2-10 type=test
    let address = format!("0d2a{}01aa{}", "00".repeat(24), "11".repeat(16));
    for hexed in ["000101", &format!("0210{}", "00".repeat(16)), "1000", &address] {
        assert_eq!(code(hexed, Side::Client), ERROR, "{hexed}");
        assert_eq!(code(hexed, Side::Server), None, "{hexed}");
    }
}

#[test]
fn a_parameter_that_comes_twice_is_refused() {
    //= rfc9000#7.4-3 type=test
    for one in ["010105", "0c00", "1d00", "6ab200", "c0000000ff04de1b0101", "1b00", "7c2f01aa"] {
        assert_eq!(code(one, Side::Server), None, "{one}");
        assert_eq!(code(&format!("{one}{one}"), Side::Server), ERROR, "{one}");
        assert_eq!(code(&format!("{one}0f00{one}"), Side::Server), ERROR, "{one}");
    }
    // Also behind a crowd of unknown ones.
    let crowd: String = (0..100).map(|i| format!("80{:06x}00", 0x10_0000 + i)).collect();
    assert_eq!(code(&crowd, Side::Client), None);
    assert_eq!(code(&format!("{crowd}6ab200c0000000ff04de1b0101"), Side::Client), None);
    assert_eq!(code(&format!("{crowd}6ab2006ab200"), Side::Client), ERROR);
    assert_eq!(code(&format!("c0000000ff04de1b0101{crowd}c0000000ff04de1b0101"), Side::Client), ERROR);
}

#[test]
fn values_out_of_range_are_refused() {
    //= rfc9000#7.4-1 type=test
    let long_cid = format!("0f15{}", "00".repeat(21));
    for (good, bad) in [
        ("03 02 44b0", "03 02 44af"),
        ("0a 01 14", "0a 01 15"),
        ("0b 02 7fff", "0b 04 80004000"),
        ("08 08 d000000000000000", "08 08 d000000000000001"),
        ("09 08 d000000000000000", "09 08 ffffffffffffffff"),
        ("0e 01 02", "0e 01 01"),
        ("0c 00", "0c 01 00"),
        //= reset-stream-at#3-1 type=test
        ("1d 00", "1d 01 00"),
        ("0f 00", &long_cid),
        // A number that is shorter or longer than its parameter, or a parameter that is longer than the rest.
        ("01 02 4005", "01 01 40"),
        ("01 01 05", "01 02 0500"),
        ("01 01 05", "01 00"),
        ("01 01 05", "01 02 05"),
        ("20 04 8000ffff", "20 04 8000ff"),
    ] {
        assert_eq!(code(good, Side::Client), None, "{good}");
        assert_eq!(code(bad, Side::Client), ERROR, "{bad}");
    }
}

#[test]
fn every_prefix_is_whole_parameters_or_refused() {
    let bytes = encoded(&full(), Side::Server, 5);
    let mut whole = 0;
    for cut in 0..bytes.len() {
        match decode(&bytes[..cut], Side::Server) {
            Ok(_) => whole += 1,
            Err(v) => assert_eq!(Some(v.code), ERROR, "{cut}"),
        }
    }
    assert!((15..=25).contains(&whole), "{whole}");
}

#[test]
fn unknown_parameters_are_ignored() {
    //= rfc9000#7.4.2-1 type=test
    assert_eq!(decode(&hex("1b0301020332027fff7a0100"), Side::Client), Ok(TransportParams::default()));
}

#[test]
fn fewer_than_two_connection_ids_are_refused() {
    //= rfc9000#18.2-7, rfc9000#18.2-8 type=test
    assert_eq!((code("0e0101", Side::Client), code("0e0100", Side::Server)), (ERROR, ERROR));
    assert_eq!(decode(&hex("0e0102"), Side::Client).map(|p| p.active_cid_limit), Ok(2));
}

#[test]
fn too_many_streams_are_refused() {
    //= rfc9000#4.6-1 type=test
    assert_eq!(
        (code("0808d000000000000001", Side::Client), code("0908d000000000000001", Side::Client)),
        (ERROR, ERROR)
    );
}

#[test]
fn a_preferred_address_has_a_connection_id_and_its_server_too() {
    //= rfc9000#18.2-4, rfc9000#18.2-5, rfc9000#18.2-6 type=test
    let address = |cid: &str| {
        let body = format!("{}{:02x}{cid}{}", "00".repeat(24), cid.len() / 2, "11".repeat(16));
        format!("0d{:02x}{body}", body.len() / 2)
    };
    for cid in ["", &"ab".repeat(21)] {
        assert_eq!(code(&address(cid), Side::Server), ERROR, "{cid}");
    }
    assert_eq!(code(&address("ab"), Side::Server), None);
    assert_eq!(code(&format!("{}0f0101", address("ab")), Side::Server), None);
    assert_eq!(code(&format!("{}0f00", address("ab")), Side::Server), ERROR);
    assert_eq!(code(&format!("0f00{}", address("ab")), Side::Server), ERROR);
    let neither = decode(&hex(&address("ab")), Side::Server).unwrap().preferred_address.unwrap();
    assert_eq!((neither.v4, neither.v6), (None, None));
    // Only all zeros mean that there is no address.
    for (at, zeros) in [(0, "c0000201"), (8, "0001"), (12, "20010db8"), (44, "0001")] {
        let mut hexed = address("ab");
        hexed.replace_range(4 + at..4 + at + zeros.len(), zeros);
        let some = decode(&hex(&hexed), Side::Server).unwrap().preferred_address.unwrap();
        assert_eq!((some.v4.is_some(), some.v6.is_some()), (at < 12, at >= 12), "{at}");
    }
}

#[test]
fn version_information_is_checked_when_it_is_read() {
    //= rfc9368#4-4 type=test
    for hexed in ["1100", "11020000", "110500000001ff", "1103000000"] {
        assert_eq!(code(hexed, Side::Server), ERROR, "{hexed}");
    }
    //= rfc9368#4-5 type=test
    assert_eq!(code("11080000000000000001", Side::Server), ERROR);
    assert_eq!(code("110c000000010000000100000000", Side::Client), ERROR);
    //= rfc9368#4-6 type=test
    assert_eq!(code("1108000000016b3343cf", Side::Client), ERROR);
    assert_eq!(code("1108000000016b3343cf", Side::Server), None);
    assert_eq!(code("110400000001", Side::Server), None);
    // A long list is judged whole and kept in part.
    let list: String = (2..40).map(|v| format!("{v:08x}")).collect();
    let long = decode(&hex(&format!("1140a0 00000001 {list} 00000001")), Side::Client).unwrap();
    assert_eq!(long.version_information.unwrap().available.len(), AVAILABLE_VERSIONS_MAX);
}

#[test]
fn the_grease_bit_parameter_is_empty() {
    //= rfc9287#3-1 type=test
    assert_eq!((code("6ab200", Side::Client), code("6ab20100", Side::Client)), (None, ERROR));
}

#[test]
fn the_smallest_ack_delay_is_not_above_the_largest() {
    //= ack-frequency#3-2 type=test
    let delay = "c0000000ff04de1b04800061a8";
    assert_eq!(code(delay, Side::Client), None);
    assert_eq!(code(&format!("{delay}0b0118"), Side::Client), ERROR);
    assert_eq!(code(&format!("0b0119{delay}"), Side::Client), None);
    assert_eq!(code("c0000000ff04de1b04800061a9", Side::Client), ERROR);
}

#[test]
fn connection_ids_of_the_handshake_have_to_match() {
    //= rfc9000#7.3-1, rfc9000#7.3-2, rfc9000#7.3-3, rfc9000#7.3-4 type=test
    let [a, b, c] = [1u8, 2, 3].map(|n| Cid::new(&[n; 8]).unwrap());
    let server = TransportParams {
        initial_scid: Some(a),
        original_dcid: Some(b),
        retry_scid: None,
        ..TransportParams::default()
    };
    let check = |p: &TransportParams, side, retry| verify_cids(p, side, &a, &b, retry).err().map(|v| v.code);
    assert_eq!(check(&server, Side::Server, None), None);
    assert_eq!(check(&server, Side::Server, Some(&c)), ERROR);
    let retried = TransportParams { retry_scid: Some(c), ..server.clone() };
    assert_eq!(check(&retried, Side::Server, Some(&c)), None);
    assert_eq!(check(&retried, Side::Server, None), ERROR);
    assert_eq!(check(&TransportParams { original_dcid: None, ..server.clone() }, Side::Server, None), ERROR);
    assert_eq!(check(&TransportParams { initial_scid: None, ..server.clone() }, Side::Server, None), ERROR);
    assert_eq!(check(&TransportParams { initial_scid: Some(c), ..server.clone() }, Side::Server, None), ERROR);
    let client = TransportParams { initial_scid: Some(a), ..TransportParams::default() };
    assert_eq!(check(&client, Side::Client, None), None);
    assert_eq!(check(&TransportParams::default(), Side::Client, None), ERROR);
}

#[test]
fn the_reserved_parameter_is_of_the_reserved_form() {
    for random in (0..2000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        let bytes = encoded(&TransportParams::default(), Side::Client, random);
        let mut r = Reader::new(&bytes);
        let id = r.varint().unwrap();
        assert_eq!(id % 31, 27);
        assert!(r.prefixed().is_some() && r.is_empty());
        // It never takes the place of a parameter that means something.
        assert_eq!(decode(&bytes, Side::Client), Ok(TransportParams::default()), "{random:#x}");
    }
}

fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 2..64u32).prop_map(|(v, shift)| v >> shift)
}

prop_compose! {
    fn any_params()(
        n in prop::array::uniform8(number()),
        cids in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=20), 4),
        exponent in 0..=20u8, ack_ms in 0..1u64 << 14, token: [u8; 16], flags: [bool; 8], port: u16,
        versions in prop::collection::vec(1..u32::MAX, 1..16)
    ) -> TransportParams {
        let cid = |i: usize| Cid::new(&cids[i]);
        TransportParams {
            original_dcid: cid(0).filter(|_| flags[0]),
            max_idle_timeout_ms: n[0],
            reset_token: flags[1].then_some(ResetToken(token)),
            max_udp_payload: n[1].max(1200),
            max_data: n[2],
            max_stream_data_bidi_local: n[3],
            max_stream_data_bidi_remote: n[4],
            max_stream_data_uni: n[5],
            max_streams_bidi: n[6] % (STREAMS_MAX + 1),
            max_streams_uni: n[7] % (STREAMS_MAX + 1),
            ack_delay_exponent: exponent,
            max_ack_delay_ms: ack_ms,
            disable_active_migration: flags[2],
            preferred_address: flags[3].then(|| PreferredAddress {
                v4: flags[4].then(|| SocketAddrV4::new(Ipv4Addr::from([192, 0, 2, token[0]]), port)),
                v6: flags[5].then(|| SocketAddrV6::new(Ipv6Addr::from(token), port | 1, 0, 0)),
                cid: cid(1).unwrap(),
                token: ResetToken(token),
            }),
            active_cid_limit: n[0].max(2),
            initial_scid: cid(2),
            retry_scid: cid(3).filter(|_| flags[6]),
            max_datagram_frame: n[5],
            grease_quic_bit: flags[7],
            version_information: Some(VersionInformation {
                chosen: Version(versions[0]),
                available: versions.iter().map(|v| Version(*v)).collect(),
            }),
            min_ack_delay_us: flags[0].then_some((ack_ms * 1000).min(n[1])),
            reset_stream_at: flags[5],
        }
    }
}

proptest! {
    #[test]
    fn parameters_are_read_as_written(params in any_params(), random: u64) {
        prop_assert_eq!(decode(&encoded(&params, Side::Server, random), Side::Server), Ok(params.clone()));
        let client = TransportParams {
            original_dcid: None, reset_token: None, preferred_address: None, retry_scid: None, ..params
        };
        prop_assert_eq!(decode(&encoded(&client, Side::Client, random), Side::Client), Ok(client));
    }

    #[test]
    fn any_bytes_are_parameters_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), server: bool) {
        let sender = if server { Side::Server } else { Side::Client };
        match decode(&bytes, sender) {
            Ok(params) => prop_assert_eq!(decode(&encoded(&params, sender, 1), sender), Ok(params)),
            Err(v) => prop_assert_eq!(Some(v.code), ERROR),
        }
    }

    #[test]
    fn changed_bytes_never_panic(at in 0..260usize, to: u8) {
        let mut bytes = encoded(&full(), Side::Server, 3);
        let len = bytes.len();
        bytes[at % len] = to;
        if let Err(v) = decode(&bytes, Side::Server) {
            prop_assert_eq!(Some(v.code), ERROR);
        }
    }
}
