//! Between one client and a server: what the server sends waits as long as a test wants, so that the handshake is not complete.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::sync::watch;

/// Whether a datagram has a packet of 0-RTT (RFC 9000 section 17.2.3).
fn has_early(mut datagram: &[u8]) -> bool {
    fn number(from: &mut &[u8]) -> Option<usize> {
        let length = 1 << (from.first()? >> 6);
        let (bytes, rest) = from.split_at_checked(length)?;
        *from = rest;
        Some(bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)) & ((1 << (8 * length - 2)) - 1))
    }
    let mut rest_behind = || {
        let (head, mut rest) = datagram.split_at_checked(5)?;
        if head[0] & 0x80 == 0 {
            return None;
        }
        let kind = head[0] >> 4 & 3;
        for _ in 0..2 {
            let length = usize::from(*rest.first()?);
            rest = rest.get(1 + length..)?;
        }
        if kind == 0 {
            let token = number(&mut rest)?;
            rest = rest.get(token..)?;
        }
        let length = number(&mut rest)?;
        datagram = rest.get(length..)?;
        Some(kind == 1)
    };
    std::iter::from_fn(&mut rest_behind).any(|early| early)
}

/// Carries datagrams.
pub struct Relay {
    /// The port that stands for the server's.
    pub port: u16,
    /// Whether 0-RTT came by.
    pub early: watch::Sender<bool>,
    /// What the client sent until then.
    pub flight: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Relay {
    /// What the server sends waits until `open`.
    pub async fn start(server: SocketAddr, mut open: watch::Receiver<bool>) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        far.connect(server).await.unwrap();
        let (early, flight) = (watch::Sender::new(false), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let relay = Self { port: near.local_addr().unwrap().port(), early: early.clone(), flight: flight.clone() };
        let client = Arc::new(Mutex::new(None));
        let (from, to, note) = (near.clone(), far.clone(), client.clone());
        tokio::spawn(async move {
            let mut datagram = vec![0; 65536];
            while let Ok((n, client)) = from.recv_from(&mut datagram).await {
                *note.lock().unwrap() = Some(client);
                if !*early.borrow() {
                    flight.lock().unwrap().push(datagram[..n].to_vec());
                }
                let _ = to.send(&datagram[..n]).await;
                if has_early(&datagram[..n]) {
                    early.send_replace(true);
                }
            }
        });
        tokio::spawn(async move {
            let mut datagram = vec![0; 65536];
            while let Ok(n) = far.recv(&mut datagram).await {
                if open.wait_for(|open| *open).await.is_err() {
                    return;
                }
                let client = client.lock().unwrap().unwrap();
                let _ = near.send_to(&datagram[..n], client).await;
            }
        });
        relay
    }

    /// Waits until 0-RTT came by.
    pub async fn came_early(&self) {
        self.early.subscribe().wait_for(|came| *came).await.unwrap();
    }
}
