//! quiche's own HTTP/3 in a plain loop: trains in, everything that is due, trains out.

use std::collections::HashMap;
use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use boring::ssl::{SslContextBuilder, SslFiletype, SslMethod};
use h3_load::{Opts, REQUEST, RESPONSE};
use quiche::h3::{Event, Header, NameValue};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};

const CID: usize = 16;

fn config(o: &Opts) -> quiche::Config {
    let mut tls = SslContextBuilder::new(SslMethod::tls()).unwrap();
    if o.server {
        tls.set_certificate_chain_file(&o.cert).unwrap();
        tls.set_private_key_file(&o.key, SslFiletype::PEM).unwrap();
    }
    tls.set_curves_list("X25519").unwrap();
    let mut c = quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, tls).unwrap();
    c.set_application_protos(quiche::h3::APPLICATION_PROTOCOL).unwrap();
    c.verify_peer(false);
    c.set_max_idle_timeout(60_000);
    c.set_max_recv_udp_payload_size(1472);
    c.set_max_send_udp_payload_size(1472);
    c.set_initial_max_data(32 << 20);
    c.set_initial_max_stream_data_bidi_local(1 << 20);
    c.set_initial_max_stream_data_bidi_remote(1 << 20);
    c.set_initial_max_stream_data_uni(1 << 20);
    c.set_max_connection_window(32 << 20);
    c.set_max_stream_window(16 << 20);
    c.set_initial_max_streams_bidi(1024);
    c.set_initial_max_streams_uni(16);
    c.set_disable_active_migration(true);
    // quiche only stamps a departure time on packets; nothing on loopback would honour it.
    c.enable_pacing(false);
    c
}

/// A socket with trains in both directions.
struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    bufs: Vec<Vec<u8>>,
    out: Vec<u8>,
}

impl Udp {
    fn bind(addr: SocketAddr) -> Self {
        let socket = UdpSocket::bind(addr).unwrap();
        let s = socket2::SockRef::from(&socket);
        let _ = s.set_recv_buffer_size(8 << 20);
        let _ = s.set_send_buffer_size(8 << 20);
        let state = UdpSocketState::new((&socket).into()).unwrap();
        let local = socket.local_addr().unwrap();
        Self { socket, state, local, bufs: vec![vec![0; 64 << 10]; BATCH_SIZE], out: vec![0; 64 << 10] }
    }

    /// Gives everything that is there, at most one batch; whether there was anything.
    fn recv(&mut self, mut f: impl FnMut(&mut [u8], SocketAddr)) -> bool {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let got = {
            let mut slices: Vec<IoSliceMut> = self.bufs.iter_mut().map(|b| IoSliceMut::new(b)).collect();
            match self.state.recv((&self.socket).into(), &mut slices, &mut metas) {
                Ok(n) => n,
                Err(_) => return false,
            }
        };
        for (meta, buf) in metas.iter().zip(&mut self.bufs).take(got) {
            for datagram in buf[..meta.len].chunks_mut(meta.stride.max(1)) {
                f(datagram, meta.addr);
            }
        }
        got > 0
    }

    /// Sends everything that a connection has, in trains: datagrams of one size, and a shorter one at the end.
    fn flush(&mut self, conn: &mut quiche::Connection) {
        let most = self.state.max_gso_segments().min(40);
        // A datagram that did not fit the train before it begins the next one.
        let mut kept = None;
        loop {
            let (mut len, mut segment, mut n) = (0, 0, 0);
            let mut to: Option<SocketAddr> = None;
            if let Some((at, size, whom)) = kept.take() {
                self.out.copy_within(at..at + size, 0);
                (len, segment, n, to) = (size, size, 1, Some(whom));
            }
            let mut more = true;
            while n < most && len + 1472 <= self.out.len() {
                let Ok((size, info)) = conn.send(&mut self.out[len..]) else {
                    more = false;
                    break;
                };
                if n > 0 && (size > segment || Some(info.to) != to) {
                    kept = Some((len, size, info.to));
                    break;
                }
                to = Some(info.to);
                if n == 0 {
                    segment = size;
                }
                len += size;
                n += 1;
                if size < segment {
                    break;
                }
            }
            if let Some(destination) = to {
                let contents = &self.out[..len];
                let segment_size = (n > 1).then_some(segment);
                let t = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
                while self.state.send((&self.socket).into(), &t).is_err() {
                    std::thread::yield_now();
                }
            }
            if kept.is_none() && (!more || to.is_none()) {
                return;
            }
        }
    }

    /// Waits for something to come.
    fn wait(&self, limit: Option<Duration>) {
        use rustix::event::{PollFd, PollFlags, poll};
        let limit = limit.map(|d| rustix::time::Timespec { tv_sec: d.as_secs() as i64, tv_nsec: d.subsec_nanos() as i64 });
        let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], limit.as_ref());
    }
}

fn main() {
    let o = h3_load::opts();
    if o.server { server(&o) } else { client(&o) }
}

struct Served {
    quic: quiche::Connection,
    h3: Option<quiche::h3::Connection>,
    /// Answers that found no room, with how much of the body was sent; none of it when not even the head was.
    partial: HashMap<u64, Option<usize>>,
}

fn server(o: &Opts) {
    let mut config = config(o);
    let mut udp = Udp::bind(o.addr);
    let mut conns: HashMap<Vec<u8>, Served> = HashMap::new();
    let h3_config = quiche::h3::Config::new().unwrap();
    let mut response = vec![Header::new(b":status", b"200")];
    response.extend(RESPONSE.map(|(n, v)| Header::new(n.as_bytes(), v.as_bytes())));
    response.push(Header::new(b"content-length", o.body.to_string().as_bytes()));
    let body = vec![b'x'; o.body];
    let mut ids = 0u128;
    println!("ready");
    loop {
        let limit = conns.values().filter_map(|c| c.quic.timeout()).min();
        udp.wait(limit);
        let local = udp.local;
        loop {
            let any = udp.recv(|datagram, from| {
                let Ok(header) = quiche::Header::from_slice(datagram, CID) else { return };
                let key = header.dcid.to_vec();
                if !conns.contains_key(&key) {
                    if header.ty != quiche::Type::Initial {
                        return;
                    }
                    ids += 1;
                    let scid = ids.to_be_bytes().to_vec();
                    let quic = quiche::accept(&quiche::ConnectionId::from_ref(&scid), None, local, from, &mut config).unwrap();
                    conns.insert(scid.clone(), Served { quic, h3: None, partial: HashMap::new() });
                    let conn = conns.get_mut(&scid).unwrap();
                    let _ = conn.quic.recv(datagram, quiche::RecvInfo { from, to: local });
                    return;
                }
                let conn = conns.get_mut(&key).unwrap();
                let _ = conn.quic.recv(datagram, quiche::RecvInfo { from, to: local });
            });
            if !any {
                break;
            }
        }
        for conn in conns.values_mut() {
            conn.quic.on_timeout();
            serve(conn, &h3_config, &response, &body);
            udp.flush(&mut conn.quic);
        }
        conns.retain(|_, c| !c.quic.is_closed());
    }
}

fn serve(conn: &mut Served, config: &quiche::h3::Config, response: &[Header], body: &[u8]) {
    let quic = &mut conn.quic;
    if conn.h3.is_none() && quic.is_established() {
        conn.h3 = quiche::h3::Connection::with_transport(quic, config).ok();
    }
    let Some(h3) = &mut conn.h3 else { return };
    conn.partial.retain(|id, sent| !answer(h3, quic, *id, sent, response, body));
    while let Ok((id, event)) = h3.poll(quic) {
        if let Event::Headers { .. } = event {
            let mut sent = None;
            if !answer(h3, quic, id, &mut sent, response, body) {
                conn.partial.insert(id, sent);
            }
        }
    }
}

/// Sends what there is room for; whether that was the rest.
fn answer(
    h3: &mut quiche::h3::Connection,
    quic: &mut quiche::Connection,
    id: u64,
    sent: &mut Option<usize>,
    response: &[Header],
    body: &[u8],
) -> bool {
    if sent.is_none() {
        match h3.send_response(quic, id, response, false) {
            Ok(()) => *sent = Some(0),
            Err(quiche::h3::Error::StreamBlocked | quiche::h3::Error::Done) => return false,
            Err(_) => return true,
        }
    }
    let at = sent.unwrap_or(0);
    match h3.send_body(quic, id, &body[at..], true) {
        Ok(n) => *sent = Some(at + n),
        Err(quiche::h3::Error::Done) => {}
        Err(_) => return true,
    }
    sent.is_some_and(|n| n == body.len())
}

fn client(o: &Opts) {
    let mut config = config(o);
    let mut udp = Udp::bind(([127, 0, 0, 1], 0).into());
    let scid = [7; CID];
    let scid = quiche::ConnectionId::from_ref(&scid);
    let mut quic = quiche::connect(Some("localhost"), &scid, udp.local, o.addr, &mut config).unwrap();
    udp.flush(&mut quic);
    while !quic.is_established() {
        turn(&mut udp, &mut quic);
    }
    let mut h3 = quiche::h3::Connection::with_transport(&mut quic, &quiche::h3::Config::new().unwrap()).unwrap();
    run(&mut udp, &mut quic, &mut h3, o, h3_load::warm_up(o));
    let (before, began) = (quic.stats(), Instant::now());
    let mut times = run(&mut udp, &mut quic, &mut h3, o, o.count);
    let after = quic.stats();
    let (sent, received) = (after.sent_bytes - before.sent_bytes, after.recv_bytes - before.recv_bytes);
    h3_load::report("quiche", o, began, &mut times, sent, received);
    let _ = quic.close(true, 0x100, b"");
    udp.flush(&mut quic);
}

fn turn(udp: &mut Udp, quic: &mut quiche::Connection) {
    udp.flush(quic);
    udp.wait(quic.timeout());
    let to = udp.local;
    while udp.recv(|datagram, from| {
        let _ = quic.recv(datagram, quiche::RecvInfo { from, to });
    }) {}
    quic.on_timeout();
    assert!(!quic.is_closed(), "the connection was lost: {:?} {:?} {}", quic.local_error(), quic.peer_error(), quic.is_timed_out());
}

fn run(
    udp: &mut Udp,
    quic: &mut quiche::Connection,
    h3: &mut quiche::h3::Connection,
    o: &Opts,
    count: u64,
) -> Vec<Duration> {
    let (mut next, mut times) = (0, Vec::with_capacity(count as usize));
    let mut open: HashMap<u64, (Instant, usize)> = HashMap::new();
    let mut buf = vec![0; 64 << 10];
    while (times.len() as u64) < count {
        while next < count && (open.len() as u64) < o.concurrency {
            let mut head = vec![
                Header::new(b":method", b"GET"),
                Header::new(b":scheme", b"https"),
                Header::new(b":authority", b"localhost"),
                Header::new(b":path", h3_load::path(next).as_bytes()),
            ];
            head.extend(REQUEST.map(|(n, v)| Header::new(n.as_bytes(), v.as_bytes())));
            match h3.send_request(quic, &head, true) {
                Ok(id) => open.insert(id, (Instant::now(), 0)),
                Err(quiche::h3::Error::StreamBlocked | quiche::h3::Error::TransportError(quiche::Error::StreamLimit)) => break,
                Err(e) => panic!("{e}"),
            };
            next += 1;
        }
        turn(udp, quic);
        while let Ok((id, event)) = h3.poll(quic) {
            match event {
                Event::Headers { list, .. } => assert!(list.iter().any(|h| h.name() == b":status" && h.value() == b"200")),
                Event::Data => {
                    while let Ok(n) = h3.recv_body(quic, id, &mut buf) {
                        open.get_mut(&id).unwrap().1 += n;
                    }
                }
                Event::Finished => {
                    let (began, got) = open.remove(&id).unwrap();
                    assert_eq!(got, o.body);
                    times.push(began.elapsed());
                }
                other => panic!("{other:?}"),
            }
        }
    }
    times
}
