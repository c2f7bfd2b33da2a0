#!/usr/bin/env python3
"""Web servers and proxies under load: tools/bench/serve.py --courser PROGRAM --load PROGRAM [--caddy PROGRAM] [--rounds N] [--json FILE]

    cargo build --release -p courser-cli
    cargo build --release -p courser-web --example web_load
    tools/bench/serve.py --courser target/release/courser --load target/release/examples/web_load --caddy caddy

One client (the example `web_load`) asks each server for one file again and again: 1 kB and 1 MB over HTTP/3, HTTP/2 and HTTP/1.1,
32 at a time (8 for 1 MB), on one connection (HTTP/1.1: on as many as there are requests at a time). Then the same for 1 kB through a
proxy to an origin of HTTP/1.1 that the example is too. Every run has a fresh server, pinned to the first core, and a client and
an origin, pinned to the second; rounds are interleaved. The table has medians. CPU is the server's, of the requests alone, in
the steps of the system's clock. No server writes an access log. Use a machine that does nothing else.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from h3 import certificate, cpu_of, pinned

# Name, path, requests at a time, requests.
FILES = [("1 kB", "/small", 32, 20_000), ("1 MB", "/large", 8, 300)]
PROXIED = ("1 kB through a proxy", "/small", 32, 10_000)
VERSIONS = ["3", "2", "1"]
NAMES = {"3": "HTTP/3", "2": "HTTP/2", "1": "HTTP/1.1"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until_listening(port, process):
    for _ in range(200):
        if process.poll() is not None:
            raise RuntimeError("the server ended")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("nobody listens")


def courser(program, folder, cert, key, port, origin):
    what = ["proxy", "--origin", origin] if origin else ["serve", folder / "www"]
    return [program, *what, "--listen", f"127.0.0.1:{port}", "--cert", cert, "--key", key, "--access-log", "off"], None


def caddy(program, folder, cert, key, port, origin):
    what = f"reverse_proxy {origin}" if origin else f"root * {folder / 'www'}\n\tfile_server"
    text = ("{\n\tadmin off\n\tauto_https off\n\tlog {\n\t\tlevel ERROR\n\t}\n}\n"
            f"https://localhost:{port}, https://127.0.0.1:{port} {{\n\ttls {cert} {key}\n\t{what}\n}}\n")
    file = folder / "Caddyfile"
    file.write_text(text)
    home = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}
    return [program, "run", "--config", file, "--adapter", "caddyfile"], home


def run(make, program, load, folder, keys, case, version, proxied):
    _, path, concurrency, count = case
    origin = None
    processes = []
    try:
        if proxied:
            origin_port = free_port()
            origin = f"http://127.0.0.1:{origin_port}"
            processes.append(subprocess.Popen([*pinned(1), load, "origin", "--listen", f"127.0.0.1:{origin_port}",
                                               "--body", "1000"], stdout=subprocess.DEVNULL))
            until_listening(origin_port, processes[0])
        port = free_port()
        command, environment = make(program, folder, *keys, port, origin)
        server = subprocess.Popen([*pinned(0), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        processes.append(server)
        until_listening(port, server)
        client = subprocess.Popen([*pinned(1), load, "client", "--url", f"https://127.0.0.1:{port}{path}", "--http", version,
                                   "--count", str(count), "--concurrency", str(concurrency)],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(client)
        client.stdout.readline()
        began = cpu_of(server.pid)
        out, err = client.communicate(timeout=300)
        ended = cpu_of(server.pid)
        if client.returncode != 0:
            raise RuntimeError(f"{command[0]}: {err.strip()}")
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
    result = json.loads(out)
    return {"rate": result["requests"] / result["seconds"], "cpu_us": (ended - began) / count * 1e6,
            "p50_us": result["p50_us"], "p99_us": result["p99_us"], "mb_s": result["bytes"] / result["seconds"] / 1e6}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--courser", required=True, type=pathlib.Path)
    parser.add_argument("--load", required=True, type=pathlib.Path)
    parser.add_argument("--caddy", type=lambda name: shutil.which(name) or parser.error(f"{name} is no program"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    servers = {"courser": (courser, args.courser.resolve())}
    if args.caddy:
        servers["caddy"] = (caddy, args.caddy)
    runs = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "www").mkdir()
        (folder / "www" / "small").write_bytes(b"s" * 1000)
        (folder / "www" / "large").write_bytes(os.urandom(1_000_000))
        keys = certificate(folder)
        for number in range(args.rounds):
            for case, proxied in [(FILES[0], False), (FILES[1], False), (PROXIED, True)]:
                for version in VERSIONS:
                    for label, (make, program) in servers.items():
                        result = run(make, program, args.load.resolve(), folder, keys, case, version, proxied)
                        runs.setdefault((case[0], version, label), []).append(result)
                        print(f"round {number + 1}: {case[0]}, {NAMES[version]}, {label}: {result['rate']:.0f}/s",
                              file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps([{"case": c, "http": v, "server": s, "runs": r} for (c, v, s), r in runs.items()]))
    print("| Case | Version | Server | requests/s | MB/s | server CPU µs/request | p50 µs | p99 µs |")
    print("|---|---|---|---|---|---|---|---|")
    for (case, version, label), results in runs.items():
        median = {key: statistics.median(r[key] for r in results) for key in results[0]}
        print(f"| {case} | {NAMES[version]} | {label} | {median['rate']:.0f} | {median['mb_s']:.0f} | {median['cpu_us']:.1f} "
              f"| {median['p50_us']:.0f} | {median['p99_us']:.0f} |")


if __name__ == "__main__":
    main()
