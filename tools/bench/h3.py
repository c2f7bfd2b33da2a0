#!/usr/bin/env python3
"""Requests over HTTP/3, Courser beside other stacks: tools/bench/h3.py LABEL=PROGRAM… [--rounds N] [--json FILE]

Each program has the command line of tools/bench/h3-peers (see common/src/lib.rs there); Courser's is the example `h3_load`:

    cargo build --release -p courser --features h3 --example h3_load
    (cd tools/bench/h3-peers && cargo build --release)
    tools/bench/h3.py courser=target/release/examples/h3_load quinn=…/h3-peer-quinn quiche=…/h3-peer-quiche

Every run has a fresh server, pinned to the first core, and a client, pinned to the second; rounds are interleaved. The table has
medians; CPU is of both sides, the client's with its handshake and its warming up. Use a machine that does nothing else.
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile

CASES = [("32 at once", 32, 100, 400_000), ("one at a time", 1, 100, 40_000), ("32 at once, 10 kB", 32, 10_000, 150_000)]


def certificate(folder):
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
               "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return cert, key


def pinned(core):
    return ["taskset", "-c", str(core)] if shutil.which("taskset") and os.cpu_count() > 1 else []


def cpu_of(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(program, cert, key, port, concurrency, body, count):
    server = subprocess.Popen([*pinned(0), program, "server", "--listen", f"127.0.0.1:{port}", "--cert", cert, "--key", key,
                               "--body", str(body)], stdout=subprocess.PIPE, text=True)
    try:
        if "ready" not in server.stdout.readline():
            raise RuntimeError(f"{program} does not serve")
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), cpu_of(server.pid)
        client = subprocess.run([*pinned(1), program, "client", "--connect", f"127.0.0.1:{port}", "--count", str(count),
                                 "--concurrency", str(concurrency), "--body", str(body)],
                                capture_output=True, text=True, timeout=300)
        if client.returncode != 0:
            raise RuntimeError(f"{program}: {client.stderr.strip()}")
        after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), cpu_of(server.pid)
    finally:
        server.kill()
        server.wait()
    result = json.loads(client.stdout)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result["server_us"] = (ended - began) / count * 1e6
    result["cpu_us"] = result["server_us"] + own / count * 1e6
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+", metavar="LABEL=PROGRAM")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    programs = dict(p.split("=", 1) for p in args.programs)
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        cert, key = certificate(pathlib.Path(folder))
        port = 14_700
        for number in range(args.rounds):
            for case, concurrency, body, count in CASES:
                for label, program in programs.items():
                    port += 1
                    result = run(program, cert, key, port, concurrency, body, count)
                    runs.setdefault((case, label), []).append(result)
                    print(f"round {number + 1}: {case}, {label}: {result['requests_per_s']:.0f}/s", file=sys.stderr)
    columns = [("requests_per_s", "requests/s", "{:,.0f}"), ("cpu_us", "CPU us", "{:.2f}"), ("server_us", "server's", "{:.2f}"),
               ("p50_us", "p50 us", "{:.0f}"), ("p99_us", "p99 us", "{:.0f}"),
               ("sent_per_request", "bytes out", "{:.1f}"), ("received_per_request", "bytes in", "{:.1f}")]
    print("| case | stack | " + " | ".join(title for _, title, _ in columns) + " |")
    print("|---|---|" + "--:|" * len(columns))
    for (case, label), results in sorted(runs.items(), key=lambda item: [c[0] for c in CASES].index(item[0][0])):
        cells = [form.format(statistics.median(r[name] for r in results)) for name, _, form in columns]
        print(f"| {case} | {label} | " + " | ".join(cells) + " |")
    if args.json:
        args.json.write_text(json.dumps([{"case": c, "label": l, "runs": r} for (c, l), r in runs.items()], indent=1))


if __name__ == "__main__":
    main()
