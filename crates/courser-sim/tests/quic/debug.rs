use courser_sim::quic::{Job, Net, NetConfig};
use courser_sim::{Duplex,LinkConfig};
use crate::support::*;
pub fn dump(net: &Net) {
    let mut all: Vec<_> = net.client_watch.notes().into_iter().map(|n| ("C", n)).chain(net.server_watch.notes().into_iter().map(|n| ("S", n))).collect();
    all.sort_by_key(|n| n.1.at_us);
    for (who, n) in all { println!("{:9.3} {who} {:?} {:?} pn{} {} {:?}", n.at_us as f64 / 1e3, n.key.index, n.level, n.pn, n.size, n.frames); }
}
#[test]
fn dbg() {
    for seed in 0..10 {
        let link = Duplex::symmetric(LinkConfig::new().delay_us(10 * MS).loss(0.15));
        let mut config = NetConfig::new(seed, link).job(Job::exchange(500, 500)).keep();
        config.hello_len = 1700; config.tls.certificate_len = 20000;
        config = config.settings(|s| s.handshake_timeout = std::time::Duration::from_secs(60));
        let mut net = Net::new(config);
        net.world.watch(|at, e| if let courser_sim::Event::Received{node, d} = e { println!("{:9.3} rx at {node} {:?}", at as f64/1e3, courser_sim::quic::inspect::packets(&d.bytes).iter().map(|p| (p.level, p.pn, p.frames)).collect::<Vec<_>>()) });
        println!("---- {seed}");
        net.run_until(40 * S);
        if net.client().app(0).unwrap().report.done_us.is_none() {
        dump(&net);
        return;
        }
    }
}
