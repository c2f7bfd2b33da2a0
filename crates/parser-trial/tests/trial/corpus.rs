//! Inputs to begin with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use courser_session::control::{Fault, Notice, Open, Profile, Protocol, Reply, Request, Role, Trust};
use courser_session::handle::Handle;
use courser_session::msg::{Op, Raw};

fn beside(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The files of a target of the core.
pub(crate) fn folder(name: &str) -> Vec<Vec<u8>> {
    let folder = beside("courser-testing/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Files of courser-h3, in which each input stands behind its length in two bytes; at most 200 inputs of each.
pub(crate) fn packed(names: &[&str]) -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for name in names {
        let file = std::fs::read(beside("courser-h3/testdata/fuzz").join(format!("{name}.bin"))).unwrap();
        let (mut rest, mut all) = (&file[..], Vec::new());
        while let Some((len, more)) = rest.split_first_chunk::<2>() {
            let (input, more) = more.split_at(u16::from_be_bytes(*len).into());
            all.push(input.to_vec());
            rest = more;
        }
        let step = all.len().div_ceil(200).max(1);
        inputs.extend(all.into_iter().step_by(step).filter(|input| input.len() <= crate::mutate::LEN_MAX));
    }
    inputs
}

/// A file of this crate, in which lines of four equal signs stand between inputs.
pub(crate) fn texts(name: &str) -> Vec<Vec<u8>> {
    let file = std::fs::read_to_string(beside("parser-trial/corpus").join(format!("{name}.txt"))).unwrap();
    let inputs = file.trim_end_matches('\n').split("\n====\n").map(|input| input.replace('␞', "\u{1e}").into_bytes());
    inputs.collect()
}

/// Messages of a server after the handshake.
pub(crate) fn after_handshakes() -> Vec<Vec<u8>> {
    let message = |kind: u8, body: &[u8]| {
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind, len[1], len[2], len[3]], body].concat()
    };
    let ticket = |extensions: &[u8]| {
        let len = u16::try_from(extensions.len()).unwrap().to_be_bytes();
        message(4, &[&[0, 0, 28, 32, 1, 2, 3, 4][..], &[2, 7, 7], &[0, 5, 1, 2, 3, 4, 5], &len, extensions].concat())
    };
    let early = |limit: u32| [&[0, 42, 0, 4][..], &limit.to_be_bytes()].concat();
    let other = [0x1a, 0x1a, 0, 1, 9];
    vec![
        ticket(&[]),
        ticket(&early(u32::MAX)),
        ticket(&early(16_384)),
        ticket(&[&other[..], &early(u32::MAX)].concat()),
        [ticket(&early(u32::MAX)), ticket(&early(u32::MAX))].concat(),
        message(13, &[0, 0, 0]),
        message(24, &[1]),
        message(4, &[0; 300]),
        vec![4, 1, 0, 0, 7, 7],
    ]
}

/// Messages of the control socket in both directions.
pub(crate) fn control() -> Vec<Vec<u8>> {
    let address: SocketAddr = "[2001:db8::1]:4433".parse().unwrap();
    let profile = Profile {
        certificates: vec![1, 2],
        alpn: vec![b"h3".to_vec(), b"courser".to_vec()],
        trust: Trust::Roots(b"-----BEGIN CERTIFICATE-----".to_vec()),
        idle_timeout_ms: Some(30_000),
        keep_alive_ms: None,
        datagrams: true,
        workers: Some(2),
        congestion: Some("bbr".to_owned()),
        streams: Some(100),
    };
    let listen = Open { protocol: Protocol::Quic, role: Role::Listen(address), profile: profile.clone() };
    let from = Role::Dial(Some(([127, 0, 0, 1], 0).into()));
    let dial = Open { protocol: Protocol::Udp, role: from, profile: Profile { trust: Trust::Anybody, ..profile } };
    let requests = [
        Request::Attach { version: 2, name: "courser".to_owned() },
        Request::AddCertificate { chain: vec![1; 40], key: vec![2; 40] },
        Request::RemoveCertificate { id: 7 },
        Request::Open(Box::new(listen)),
        Request::Open(Box::new(dial)),
        Request::Close { endpoint: 3 },
        Request::Command { words: vec!["show".to_owned(), "sessions".to_owned(), "10".to_owned()], json: true },
    ];
    let replies = [
        Reply::Certificate { id: 9 },
        Reply::Done,
        Reply::Failed { fault: Fault::ALL[0], text: "there is no such thing".to_owned() },
        Reply::Output { text: "a table\n".to_owned(), more: true },
    ];
    let notices = [
        Notice::Draining,
        Notice::Succeeded,
        Notice::EndpointGone { endpoint: 1, text: "its worker failed".to_owned() },
    ];
    let bytes = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        encode(&mut out);
        out
    };
    let mut all: Vec<_> = requests.iter().map(|message| bytes(&|out| message.encode(out))).collect();
    all.extend(replies.iter().map(|message| bytes(&|out| message.encode(out))));
    all.extend(notices.iter().map(|message| bytes(&|out| message.encode(out))));
    // What a service answers to Attach and to Open: its tag and numbers.
    all.push([&[64][..], &[7; 24]].concat());
    all.push([&[66, 1, 0, 0, 0, 4, 1, 0, 127, 0, 0, 1][..], &[0; 35]].concat());
    all
}

/// One message of each kind and handle, with and without something to carry.
pub(crate) fn messages() -> Vec<Vec<u8>> {
    // The kind stands behind 24 bits of index and 28 of generation.
    let handles = [1, 2, 3].map(|kind: u64| 7 << 56 | kind << 52 | 1 << 24 | 5);
    assert!(handles.iter().all(|raw| Handle::from_raw(*raw).is_some()));
    let mut all = Vec::new();
    for op in Op::ALL {
        for handle in [0].into_iter().chain(handles) {
            let plain = Raw { handle, arg: 5, op: op.byte(), ..Raw::default() };
            all.push(plain.to_bytes().to_vec());
        }
        for handle in handles {
            let carrying = Raw { handle, arg: handle, len: 4, flags: 1, op: op.byte(), ..Raw::default() };
            all.push([&carrying.to_bytes()[..], b"data"].concat());
        }
    }
    // One of each place is kept where there are more than a corpus has.
    all.into_iter().step_by(2).take(200).collect()
}
