//! Datagrams without a connection: what anybody can send who knows an address.

use std::io;
use std::net::UdpSocket;

use courser_core::ids::{Cid, Version};

use crate::hand::{first_flight, initial};

/// Numbers by chance; the same seed gives the same ones.
#[derive(Clone, Copy, Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.bits().to_be_bytes()[0]).collect()
    }

    /// A connection ID of eight bytes.
    pub fn cid(&mut self) -> Cid {
        Cid::new(&self.bits().to_be_bytes()).unwrap_or(Cid::EMPTY)
    }
}

/// A victim that is gone and a queue that is full are no errors of an attacker.
///
/// # Errors
/// All others.
pub fn tolerate(sent: io::Result<usize>) -> io::Result<()> {
    use io::ErrorKind::{ConnectionRefused, WouldBlock};
    match sent {
        Err(e) if !matches!(e.kind(), ConnectionRefused | WouldBlock) && e.raw_os_error() != Some(105) => Err(e),
        _ => Ok(()),
    }
}

/// Makes the n-th datagram of a kind.
pub type Make = fn(&mut Chance, u64) -> io::Result<Vec<u8>>;

/// CRYPTO with the beginning of a ClientHello of a KiB.
const HALF_HELLO: &[u8] = &[0x06, 0, 6, 1, 0, 4, 0, 3, 3];

/// Initials of many clients, each with half a ClientHello.
pub fn half_hellos(chance: &mut Chance, _: u64) -> io::Result<Vec<u8>> {
    initial(Version::V1, &chance.cid(), &[], HALF_HELLO, 1200)
}

/// Initials that say PING and nothing else.
pub fn pings(chance: &mut Chance, _: u64) -> io::Result<Vec<u8>> {
    initial(Version::V1, &chance.cid(), &[], &[1], 1200)
}

/// Initials with connection IDs that differ where weak hashes do not look.
pub fn chosen_names(_: &mut Chance, n: u64) -> io::Result<Vec<u8>> {
    // Sums, products by 31 and exclusive ors of the two halves are the same for all of these.
    let half = u32::try_from(n & 0xffff_ffff).unwrap_or(0);
    let bytes = [half.to_be_bytes(), half.to_be_bytes()].concat();
    let dcid = Cid::new(&bytes).ok_or_else(|| io::Error::other("a connection ID has eight bytes"))?;
    initial(Version::V1, &dcid, &[], HALF_HELLO, 1200)
}

/// One ClientHello byte by byte, the last byte first.
pub fn dribble(_: &mut Chance, n: u64) -> io::Result<Vec<u8>> {
    let at = 900 - n % 900;
    let offset = (0x4000 | u16::try_from(at).unwrap_or(0)).to_be_bytes();
    let dcid = Cid::new(&[0x77; 8]).ok_or_else(|| io::Error::other("a connection ID has eight bytes"))?;
    initial(Version::V1, &dcid, &[], &[0x06, offset[0], offset[1], 1, 0], 1200)
}

/// Real first datagrams of clients that are never heard of again.
pub fn hellos(chance: &mut Chance, n: u64) -> io::Result<Vec<u8>> {
    // Making one costs more than sending it: one in eight is new, the others come from a list of names by chance.
    if n.is_multiple_of(8) { Ok(first_flight()?.swap_remove(0)) } else { half_hellos(chance, n) }
}

/// Tokens of every length that nobody gave out.
pub fn tokens(chance: &mut Chance, n: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(n % 200).unwrap_or(0) + 1;
    let token = chance.bytes(len);
    initial(Version::V1, &chance.cid(), &token, HALF_HELLO, 1200)
}

/// Initials in datagrams that are too small.
pub fn small(chance: &mut Chance, n: u64) -> io::Result<Vec<u8>> {
    initial(Version::V1, &chance.cid(), &[], HALF_HELLO, 300 + usize::try_from(n % 800).unwrap_or(0))
}

/// The second packet of the datagram goes to somebody else.
pub fn coalesced(chance: &mut Chance, _: u64) -> io::Result<Vec<u8>> {
    let first = initial(Version::V1, &chance.cid(), &[], HALF_HELLO, 600)?;
    let second = initial(Version::V1, &chance.cid(), &[], HALF_HELLO, 600)?;
    Ok([first, second].concat())
}

/// Packets of versions that nobody speaks.
pub fn versions(chance: &mut Chance, _: u64) -> io::Result<Vec<u8>> {
    let mut packet = initial(Version::V1, &chance.cid(), &[], HALF_HELLO, 1200)?;
    packet[1..5].copy_from_slice(&(chance.bits() as u32 | 0x1000_0000).to_be_bytes());
    Ok(packet)
}

/// Lists of versions, which servers do not hear.
pub fn version_lists(chance: &mut Chance, _: u64) -> io::Result<Vec<u8>> {
    let mut packet = vec![0xc0, 0, 0, 0, 0, 8];
    packet.extend(chance.bytes(8));
    packet.push(8);
    packet.extend(chance.bytes(8));
    packet.extend([0x6b, 0x33, 0x43, 0xcf, 0, 0, 0, 1]);
    Ok(packet)
}

/// Long headers of a type, with nothing that can be opened.
fn long(chance: &mut Chance, kind: u8) -> Vec<u8> {
    let mut packet = vec![0xc0 | kind << 4, 0, 0, 0, 1, 8];
    packet.extend(chance.bytes(8));
    packet.push(8);
    packet.extend(chance.bytes(8));
    if kind != 3 {
        packet.extend([0x44, 0x00]);
    }
    let body = chance.bytes(0x400);
    packet.extend(body);
    packet
}

/// 0-RTT packets that no ClientHello came before.
pub fn early(chance: &mut Chance, _: u64) -> io::Result<Vec<u8>> {
    Ok(long(chance, 1))
}

/// Handshake packets of nobody.
pub fn handshakes(chance: &mut Chance, _: u64) -> io::Result<Vec<u8>> {
    Ok(long(chance, 2))
}

/// Retry packets, which servers do not hear.
pub fn retries(chance: &mut Chance, _: u64) -> io::Result<Vec<u8>> {
    Ok(long(chance, 3))
}

/// Short headers to connections that are not there.
pub fn strangers(chance: &mut Chance, n: u64) -> io::Result<Vec<u8>> {
    let mut packet = chance.bytes(22 + usize::try_from(n % 1200).unwrap_or(0));
    packet[0] = 0x40 | packet[0] & 0x3f;
    Ok(packet)
}

/// Bytes by chance.
pub fn noise(chance: &mut Chance, n: u64) -> io::Result<Vec<u8>> {
    Ok(chance.bytes(usize::try_from(n % 1500).unwrap_or(0)))
}

/// Nothing at all.
pub fn empty(_: &mut Chance, _: u64) -> io::Result<Vec<u8>> {
    Ok(Vec::new())
}

/// Initials whose bytes were changed on the way.
pub fn hurt(chance: &mut Chance, _: u64) -> io::Result<Vec<u8>> {
    let mut packet = initial(Version::V1, &chance.cid(), &[], HALF_HELLO, 1200)?;
    let at = usize::try_from(chance.bits() % 1200).unwrap_or(0);
    packet[at] ^= 0x10;
    Ok(packet)
}

/// Datagrams as large as they can be.
pub fn large(chance: &mut Chance, _: u64) -> io::Result<Vec<u8>> {
    let mut packet = initial(Version::V1, &chance.cid(), &[], HALF_HELLO, 1200)?;
    packet.resize(60_000, 0);
    Ok(packet)
}

/// Reads what comes back and forgets it; returns how many bytes that were.
pub fn drain(socket: &UdpSocket) -> u64 {
    let (mut bytes, mut heard) = (vec![0; 65_536], 0);
    let _ = socket.set_nonblocking(true);
    for _ in 0..5000 {
        match socket.recv_from(&mut bytes) {
            Ok((len, _)) => heard += len as u64,
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => break,
        }
    }
    let _ = socket.set_nonblocking(false);
    heard
}
