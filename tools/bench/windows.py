#!/usr/bin/env python3
"""Goodput and processor time of a download over loopback, against socket buffer and window.

    windows.py measure PEER_COURSER > docs/performance/windows.tsv     (two free cores, openssl, taskset)
    windows.py draw docs/performance/windows.tsv docs/performance/windows.svg
"""

import json
import math
import socket
import subprocess
import sys
import tempfile

BUFFERS = ["256K", "1M", "4M", "8M", "32M"]
WINDOWS = ["256K", "512K", "1M", "2M", "4M", "8M", "16M", "64M"]
ROUNDS = 3


def size(text):
    """Bytes of a size such as 256K."""
    return int(text[:-1]) << {"K": 10, "M": 20}[text[-1]]


def certificate(folder):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def download(program, folder, buffer, window):
    """The middle one of some downloads of 2 GiB: Gb/s and seconds of the client's processor for a GB."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    server = ["taskset", "-c", "0", program, "server", "--listen", address, "--socket-buffer", buffer]
    server += ["--cert", f"{folder}/cert.pem", "--key", f"{folder}/key.pem"]
    child = subprocess.Popen(server, stdout=subprocess.PIPE, text=True)
    try:
        child.stdout.readline()  # It is ready.
        client = ["taskset", "-c", "1", program, "client", "--connect", address, "--mode", "download", "--bytes", "2G"]
        client += ["--socket-buffer", buffer, "--stream-window", window, "--conn-window", window]
        results = []
        for _ in range(ROUNDS):
            out = subprocess.run(client, check=True, capture_output=True, text=True).stdout
            result = json.loads(out.strip().splitlines()[-1])
            results.append((result["goodput_gbps"], result["cpu_s_per_GB"]))
        return sorted(results)[ROUNDS // 2]
    finally:
        child.terminate()
        child.wait()


def measure(program):
    print("series\tbuffer\twindow\tgbps\tclient_s_per_gb")
    with tempfile.TemporaryDirectory() as folder:
        certificate(folder)
        points = [("buffer", b, "16M") for b in BUFFERS] + [("window", "8M", w) for w in WINDOWS]
        for series, buffer, window in points:
            rate, cpu = download(program, folder, buffer, window)
            print(f"{series}\t{buffer}\t{window}\t{rate:.2f}\t{cpu:.3f}", flush=True)


WIDTH, HEIGHT, LEFT, TOP = 420, 240, 60, 40
COLOURS = {"window": "#2060c0", "buffer": "#c05020"}
NAMES = {"window": "window of streams and connection, socket buffers of 8 MiB", "buffer": "socket buffer, windows of 16 MiB"}


def panel(rows, column, title, low, high, step, left):
    """One chart: a column of the table against the size that the series varies."""
    exponents = range(18, 27, 2)

    def x(row):
        bits = math.log2(size(row[row["series"]]))
        return left + (bits - 18) / 8 * WIDTH

    def y(value):
        return TOP + HEIGHT * (1 - (value - low) / (high - low))

    out = [f'<text x="{left}" y="{TOP - 14}" font-weight="bold">{title}</text>']
    for n in range(round((high - low) / step) + 1):
        value = low + n * step
        out.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for bits in exponents:
        at = left + (bits - 18) / 8 * WIDTH
        label = f"{1 << bits - 10} KiB" if bits < 20 else f"{1 << bits - 20} MiB"
        out.append(f'<text x="{at:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{label}</text>')
    for series, colour in COLOURS.items():
        points = [(x(r), y(float(r[column]))) for r in rows if r["series"] == series]
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in points]
    return out


def draw(source, target):
    with open(source, encoding="utf-8") as file:
        header, *lines = [line.rstrip("\n").split("\t") for line in file if not line.startswith("#")]
    rows = [dict(zip(header, line)) for line in lines]
    width, height = 2 * (WIDTH + LEFT) + 50, TOP + HEIGHT + 80
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">']
    out.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    out += panel(rows, "gbps", "goodput, Gb/s", 16, 28, 2, LEFT)
    out += panel(rows, "client_s_per_gb", "processor time of the receiver, s/GB", 0.26, 0.42, 0.02, 2 * LEFT + WIDTH + 20)
    for n, (series, colour) in enumerate(COLOURS.items()):
        at = TOP + HEIGHT + 42 + 18 * n
        out.append(f'<line x1="{LEFT}" x2="{LEFT + 24}" y1="{at - 4}" y2="{at - 4}" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{LEFT + 32}" y="{at}">{NAMES[series]}</text>')
    out.append("</svg>")
    with open(target, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")


def main():
    match sys.argv[1:]:
        case ["measure", program]:
            measure(program)
        case ["draw", source, target]:
            draw(source, target)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
