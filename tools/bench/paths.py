#!/usr/bin/env python3
"""The goals of congestion control over real sockets: two network namespaces, a link emulator between them.

    tools/bench/paths.py --emulator EMULATOR --courser target/release/courser [--sim target/release/examples/paths] [PATH...]

For each path a `courser perf server` sends to one or two `courser perf client`s in another namespace; only the emulator
carries packets between the two. Figures come from what it captured on both sides:

    goodput  bytes of the application per second, in percent of what the link carries in full datagrams
    loss     datagrams of the server that never came out, in percent
    q95      wait in the queue that 95 % of them do not exceed, in milliseconds
    back     datagrams on the way back per 100 on the way down
    time     first datagram to the client's close of a fetch with an end: median and 95th percentile, in milliseconds
    jain     Jain's index of the bytes of two flows

With --sim the simulator's figures of the same paths stand beside them. Needs root, `ip`, `ethtool`, and an emulator that

  - takes --left IF --right IF --left-peer MAC --right-peer MAC --seed N --pcap-left FILE --pcap-right FILE (raw IP packets),
  - --bandwidth-to-client RATE, --bandwidth-to-server RATE, --queue-bytes-to-client N, --queue-bytes-to-server N, --delay DUR,
    --jitter DUR, --loss PCT, --reorder PCT, --reorder-delay DUR, --duplicate PCT, --ce-threshold N, --ecn-bleach,
    --blackhole ON,OFF,TIMES,DIRECTION, --mtu N, each also with -to-client or -to-server,
  - prints "ready" when it forwards, and ends on SIGTERM.

Rates that change, policers and bunching radio links are left to the simulator.
"""

import argparse
import collections
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

SECONDS = 10.0
HEAD = 28  # IPv4 and UDP
PAYLOAD = 1472
# What is left of a full datagram for the application, roughly: short header, stream frame, tag.
NET = 1440 / PAYLOAD

Path = collections.namedtuple("Path", "mbit rtt_ms bdps extra flows fetch runs", defaults=([], 1, None, 1))


def usual(*extra, **more):
    return Path(20, 40, 1.0, list(extra), **more)


PATHS = {
    "base-10m-30ms": Path(10, 30, 1.0),
    "fast-100m-10ms": Path(100, 10, 1.0),
    "loss01-100m-10ms": Path(100, 10, 1.0, ["--loss-to-client", "0.1"]),
    "loss1-100m-10ms": Path(100, 10, 1.0, ["--loss-to-client", "1"]),
    "loss3-100m-10ms": Path(100, 10, 1.0, ["--loss-to-client", "3"]),
    "long-20m-300ms": Path(20, 300, 1.0),
    "sat-50m-600ms": Path(50, 600, 1.0),
    "sat-50m-600ms-loss1": Path(50, 600, 1.0, ["--loss-to-client", "1"]),
    "bloat-10m-40ms-10bdp": Path(10, 40, 10.0),
    "shallow-20m-40ms-01bdp": Path(20, 40, 0.1),
    "reorder3-20m-40ms": usual("--reorder-to-client", "3", "--reorder-delay-to-client", "5ms"),
    "reorder-deep-20m-40ms": usual("--reorder-to-client", "1", "--reorder-delay-to-client", "25ms"),
    "dup2-20m-40ms": usual("--duplicate-to-client", "2"),
    "jitter-20m-40ms": usual("--jitter-to-client", "10ms"),
    "ackloss20-20m-40ms": usual("--loss-to-server", "20"),
    "thin-ack-20m-40ms": usual("--bandwidth-to-server", "200kbit", "--queue-bytes-to-server", "16000"),
    "ecn-20m-40ms": Path(20, 40, 4.0, ["--ce-threshold-to-client", "8"]),
    "ecn-bleach-20m-40ms": usual("--ecn-bleach"),
    "outage-20m-40ms": usual("--blackhole", "2s,1s,1,to-client"),
    "slow-05m-100ms": Path(0.5, 100, 4.0),
    "mtu-1280-20m-40ms": usual("--mtu", str(1280 + HEAD)),
    "fair-same": usual(flows=2),
    "vs-cubic": usual(flows=2),
    "vs-bbr": usual(flows=2),
    "vs-cubic-deep": Path(20, 40, 5.0, flows=2),
    "fct-10k": usual(fetch=10_000, runs=5),
    "fct-100k": usual(fetch=100_000, runs=5),
    "fct-1m": usual(fetch=1_000_000, runs=5),
    "fct-20m": usual(fetch=20_000_000, runs=1),
    "fct-100k-300ms": Path(20, 300, 1.0, fetch=100_000, runs=3),
    "fct-10k-loss5": usual("--loss", "5", fetch=10_000, runs=20),
    "fct-100k-loss2": usual("--loss-to-client", "2", fetch=100_000, runs=20),
}
RIVAL = {"vs-cubic": "cubic", "vs-cubic-deep": "cubic", "vs-bbr": "bbr"}


def stop(text):
    sys.exit(f"paths.py: {text}")


def sh(command, check=True):
    done = subprocess.run(command.split(), capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Net:
    """Namespaces client - router - server. The router's kernel is silent; the emulator moves the packets."""

    def __init__(self):
        tag = f"cp{os.getpid()}"
        self.client, self.router, self.server = tag + "c", tag + "r", tag + "s"
        self.children = []

    def __enter__(self):
        try:
            for ns in (self.client, self.router, self.server):
                sh(f"ip netns add {ns}")
            self._side(self.client, "left", "10.77.0.100", "10.77.0.2", "02:00:00:00:01:")
            self._side(self.server, "right", "10.77.100.100", "10.77.100.2", "02:00:00:00:02:")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _side(self, ns, iface, address, gateway, mac):
        sh(f"ip link add eth0 netns {ns} address {mac}64 type veth peer name {iface} netns {self.router} address {mac}02")
        for name, dev in ((ns, "eth0"), (self.router, iface)):
            sh(f"ip netns exec {name} ethtool -K {dev} tx off gso off tso off gro off")
        sh(f"ip netns exec {self.router} sysctl -qw net.ipv6.conf.{iface}.disable_ipv6=1")
        sh(f"ip -n {self.router} link set {iface} up")
        for command in ("link set lo up", "link set eth0 up", f"addr add {address}/24 dev eth0",
                        f"neigh replace {gateway} lladdr {mac}02 dev eth0 nud permanent",
                        f"route add default via {gateway} dev eth0"):
            sh(f"ip -n {ns} {command}")

    def spawn(self, ns, command, out):
        with open(out, "w") as file:
            child = subprocess.Popen(["ip", "netns", "exec", ns, *map(str, command)], stdin=subprocess.DEVNULL,
                                     stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        self.children.append(child)
        return child

    def end(self, child):
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def __exit__(self, *_):
        for child in reversed(self.children):
            self.end(child)
        for ns in (self.client, self.router, self.server):
            sh(f"ip netns del {ns}", check=False)


def packets(file):
    """Time, source port, destination port and UDP payload of each UDP packet of a capture of raw IPv4 packets."""
    with open(file, "rb") as f:
        data = f.read()
    at = 24
    while at + 16 <= len(data):
        s, us, kept, _ = struct.unpack_from("<IIII", data, at)
        p = data[at + 16 : at + 16 + kept]
        at += 16 + kept
        if len(p) > HEAD and p[0] >> 4 == 4 and p[9] == 17:
            ihl = 4 * (p[0] & 15)
            sport, dport = struct.unpack_from(">HH", p, ihl)
            yield s + us / 1e6, sport, dport, p[ihl + 8 :]


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, max(0, -(-int(len(values) * q * 1000) // 1000) - 1))] if values else 0.0


class Run:
    """One run of a path, and its figures."""

    def __init__(self, args, net, name, cc, seed, out):
        self.args, self.net, self.name, self.cc, self.seed, self.out = args, net, name, cc, seed, out
        self.path = PATHS[name]
        self.rate = self.path.mbit * 1e6

    def emulator(self):
        p = self.path
        queue = max(int(self.rate / 8 * p.rtt_ms / 1e3 * p.bdps), 3_000)
        command = [self.args.emulator, "--left", "left", "--right", "right", "--left-peer", "02:00:00:00:01:64",
                   "--right-peer", "02:00:00:00:02:64", "--seed", self.seed, "--pcap-left", self.out + "/left.pcap",
                   "--pcap-right", self.out + "/right.pcap", "--bandwidth-to-client", f"{int(self.rate / 1e3)}kbit",
                   "--queue-to-client", "1000000", "--queue-bytes-to-client", queue, "--delay", f"{p.rtt_ms * 500}us"]
        child = self.net.spawn(self.net.router, command + p.extra, self.out + "/emulator.txt")
        self.wait(lambda: "ready" in open(self.out + "/emulator.txt").read(), child, "the emulator")
        return child

    def wait(self, done, child, what):
        until = time.monotonic() + 10
        while not done():
            if child.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{what} does not start: see {self.out}")
            time.sleep(0.02)

    def server(self, cc, port):
        command = [self.args.courser, "perf", "server", "--listen", f"10.77.100.100:{port}", "--cc", cc, *self.args.also]
        out = f"{self.out}/server{port}.txt"
        child = self.net.spawn(self.net.server, command, out)
        listens = lambda: f":{port} " in sh(f"ip netns exec {self.net.server} ss -ulnH")
        self.wait(listens, child, "the server")
        return child

    def client(self, port):
        size, seconds = (self.path.fetch, 60) if self.path.fetch else ("20G", SECONDS)
        command = [self.args.courser, "perf", "client", f"10.77.100.100:{port}", "--insecure", "--cc", self.cc, "--bytes", size,
                   "--timeout", f"{seconds}s", *self.args.also]
        return self.net.spawn(self.net.client, command, f"{self.out}/client{port}.txt")

    def go(self):
        emulator = self.emulator()
        ports = [4433 + i for i in range(self.path.flows)]
        kinds = [self.cc, RIVAL.get(self.name, self.cc)][: self.path.flows]
        servers = [self.server(cc, port) for cc, port in zip(kinds, ports)]
        clients = [self.client(port) for port in ports]
        for client in clients:
            client.wait(90)
        for child in servers + [emulator]:
            self.net.end(child)
        return self.figures(ports)

    def figures(self, ports):
        sent, left, up, bytes_in = {}, [], [], collections.Counter()
        for t, sport, dport, payload in packets(self.out + "/right.pcap"):
            if sport in ports:
                sent.setdefault(payload[-24:], t)
        first = None
        for t, sport, dport, payload in packets(self.out + "/left.pcap"):
            if sport in ports:
                left.append((t, sport, payload[-24:], len(payload)))
                if first is None:
                    first = t
            else:
                up.append((t, payload))
        arrived = {key: t for t, _, key, _ in reversed(left)}
        base = min((t - sent[key] for key, t in arrived.items() if key in sent), default=0.0)
        waits = [1e3 * (t - sent[key] - base) for key, t in arrived.items() if key in sent]
        for t, sport, key, size in left:
            if arrived[key] == t and first <= t:
                bytes_in[sport] += size
        end = left[-1][0] if left else 0.0
        shares = [bytes_in[port] for port in ports]
        capacity = self.rate / 8 * (end - (first or 0.0)) * PAYLOAD / (PAYLOAD + HEAD)
        return {
            "goodput": 100 * NET * sum(shares) / max(capacity, 1),
            "loss": 100 * (1 - len(arrived) / max(len(sent), 1)),
            "q95": quantile(waits, 0.95),
            "back": 100 * len(up) / max(len(sent), 1),
            # The client closes at the last byte, and says so again, in the same words, to what arrives later.
            "ms": 1e3 * (min(t for t, words in up if words == up[-1][1]) - up[0][0]) if up else 0.0,
            "jain": sum(shares) ** 2 / max(len(shares) * sum(s * s for s in shares), 1),
        }


def simulated(binary, cc, names):
    """Goodput, loss, q95, times and Jain's index by path, as the simulator prints them."""
    if not binary:
        return {}
    found = {}
    for line in subprocess.run([binary, cc, *names], capture_output=True, text=True, check=True).stdout.splitlines()[1:]:
        cells = re.split(r"\s+", line.strip())
        times = cells[8] if "/" in cells[8] else ""
        rest = cells[9:] if times else cells[8:]
        found[cells[0]] = {"goodput": cells[1], "loss": cells[3], "q95": cells[4], "back": cells[7], "ms": times, "jain": rest[0]}
    return found


def row(name, cc, runs, sim):
    path, middle = PATHS[name], lambda key: quantile([r[key] for r in runs], 0.5)
    sim = sim.get(name, {})
    beside = lambda value, key: f"{value} ({sim[key]})" if sim.get(key) else value
    times = [r["ms"] for r in runs]
    cells = [
        beside(f"{middle('goodput'):.1f}", "goodput") if not path.fetch else "",
        beside(f"{middle('loss'):.2f}", "loss") if not path.fetch else "",
        beside(f"{middle('q95'):.0f}", "q95") if not path.fetch else "",
        beside(f"{middle('back'):.0f}", "back") if not path.fetch else "",
        beside(f"{quantile(times, 0.5):.0f}/{quantile(times, 0.95):.0f}", "ms") if path.fetch else "",
        beside(f"{middle('jain'):.2f}", "jain") if path.flows > 1 else "",
    ]
    return f"| {name} | {cc} | " + " | ".join(cells) + " |"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulator", help="the link emulator (see above)")
    parser.add_argument("--courser", default="target/release/courser", help="the command to measure")
    parser.add_argument("--sim", help="the simulator's example `paths`, to print its figures in brackets")
    parser.add_argument("--cc", default="cubic,bbr", help="controllers, separated by commas")
    parser.add_argument("--runs", type=int, help="runs of each path instead of its own number")
    parser.add_argument("--also", action="append", default=[], help="another option for both ends")
    parser.add_argument("--keep", help="a folder for captures and outputs, which else go away")
    parser.add_argument("--json", help="a file for all figures")
    parser.add_argument("paths", nargs="*", help="beginnings of names; none: all")
    args = parser.parse_args()
    if not args.emulator or not shutil.which(args.emulator):
        stop("no link emulator: name one with --emulator. The simulator needs none: cargo run --release -p courser-sim --example paths")
    if not shutil.which(args.courser):
        stop(f"{args.courser} is not there: cargo build --release -p courser-cli")
    if os.geteuid() != 0:
        stop("network namespaces need root")
    for tool in ("ip", "ethtool", "ss"):
        if not shutil.which(tool):
            stop(f"`{tool}` is missing")
    return args


def main():
    args = arguments()
    names = [n for n in PATHS if not args.paths or any(n.startswith(p) for p in args.paths)]
    if not names:
        stop("no such path; known are " + ", ".join(PATHS))
    everything = {}
    print("| path | sender | goodput % | loss % | q95 ms | back | p50/p95 ms | Jain |\n|---|---|--:|--:|--:|--:|--:|--:|")
    with Net() as net:
        for cc in args.cc.split(","):
            sim = simulated(args.sim, cc, names)
            for name in names:
                runs = []
                for seed in range(1, (args.runs or PATHS[name].runs) + 1):
                    out = f"{args.keep}/{cc}-{name}-{seed}" if args.keep else tempfile.mkdtemp(prefix="courser-paths-")
                    os.makedirs(out, exist_ok=True)
                    runs.append(Run(args, net, name, cc, seed, out).go())
                    if not args.keep:
                        shutil.rmtree(out)
                everything[f"{cc} {name}"] = runs
                print(row(name, cc, runs, sim), flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(everything, file, indent=1)


if __name__ == "__main__":
    main()
