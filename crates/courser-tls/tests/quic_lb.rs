//! The test vectors of draft-ietf-quic-load-balancers, appendix B.2 and section 5.4.2.4, with real AES.
//!
//! The last vector of B.2 is printed with configuration number 0 in its first byte where the table says 3; what follows is
//! right, so the first byte is compared with the rule of the draft's section 3.4.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use courser_core::cid::QuicLb;
use courser_tls::AwsLc;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn encode(config: u8, key: &str, id: &str, nonce: &str) -> String {
    let (id, nonce) = (bytes(id), bytes(nonce));
    let key = bytes(key).try_into().unwrap();
    let lb = QuicLb::new(config, &id, nonce.len(), Some(key), true).unwrap();
    lb.encode(&AwsLc, &nonce, 0).to_string()
}

#[test]
fn encrypted_connection_ids_are_those_of_the_draft() {
    let key = "8f95f09245765f80256934e50c66207f";
    for (config, id, nonce, cid) in [
        (0, "ed793a", "ee080dbf", "0720b1d07b359d3c"),
        (1, "ed793a51d49b8f5fab65", "ee080dbf48", "2fcc381bc74cb4fbad2823a3d1f8fed2"),
        (2, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", "504dd2d05a7b0de9b2b9907afb5ecf8cc3"),
        (3, "ed793a51d49b8f5fab", "ee080dbf48c0d1e55d", "725779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"),
    ] {
        assert_eq!(encode(config, key, id, nonce), cid);
    }
}

#[test]
fn the_example_of_four_passes_comes_out() {
    let cid = encode(0, "fdf726a9893ec05c0632d3956680baf0", "31441a", "9c69c275");
    assert_eq!(cid, "0767947d29be054a");
}
