use courser_sim::quic::{Job, Net, NetConfig};
use courser_sim::script::Script;
use crate::support::*;
pub fn dump(net: &Net) {
    let mut all: Vec<_> = net.client_watch.notes().into_iter().map(|n| ("C", n)).chain(net.server_watch.notes().into_iter().map(|n| ("S", n))).collect();
    all.sort_by_key(|n| n.1.at_us);
    for (who, n) in all { println!("{:9.3} {who} {:?} {:?} pn{} {} {:?}", n.at_us as f64 / 1e3, n.key.index, n.level, n.pn, n.size, n.frames); }
}
#[test]
fn dbg() {
    for (up, down, hello, cert) in [(vec![], vec![], 0, 600), (vec![0u64], vec![], 0, 600), (vec![0], vec![], 1700, 20000)] {
        println!("---- {up:?} {down:?}");
        let link = Script::new().drop_up(up).drop_down(down).apply(plain());
        let mut config = NetConfig::new(1, link).job(Job::exchange(500, 500)).keep();
        config.hello_len = hello; config.tls.certificate_len = cert;
        let mut net = Net::new(config);
        net.run_until(9 * S);
        dump(&net);
    }
}
