#!/usr/bin/env python3
"""Runs Courser beside other QUIC stacks and writes the table of docs/interop.md.

    tools/interop/matrix.py --runner PATH/TO/interop.py            runs everything, then writes the table
    tools/interop/matrix.py results.json [more.json ...]           writes the table of earlier results

The runner is called with --endpoints, --client, --server, --tests and --json, and gives a list of objects with the keys
client, server, test, result ("pass", "fail", "unsupported"), reason, seconds, seed, and optionally notes and value. Where a
test was run more than once, with several seeds or in several files, all runs have to pass; a run of a later file replaces
one of the same seed. The exit code is 1 when something failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BEGIN, END = "<!-- matrix: written by tools/interop/matrix.py -->", "<!-- end of matrix -->"
US = "courser"
MARKS = {"pass": "✓", "fail": "✗", "unsupported": "–"}


def run(args, folder):
    """Calls the runner for each side and for Courser with itself; the names of the result files."""
    endpoints = os.path.join(folder, "endpoints.toml")
    with open(endpoints, "w") as f:
        f.write(f"[endpoints.{US}]\ncommand = {json.dumps(args.command)}\n")
    files = []
    for client, server in ((US, args.peers), (args.peers, US), (US, US)):
        out = os.path.join(args.out, f"{client}-{server}".replace(",", "+"))
        files.append(out + ".json")
        call = [args.runner, "--endpoints", endpoints, "--client", client, "--server", server, "--tests", args.tests,
                "--skip", args.skip, "--seed", str(args.seed), "--repeat", str(args.repeat), "--keep", "failed",
                "--out", out, "--json", out + ".json"]
        print("$", " ".join(call), flush=True)
        # What failed is in the results; only a runner that gave none is an error here.
        code = subprocess.run(call).returncode
        if not os.path.exists(out + ".json"):
            sys.exit(f"the runner gave no results (exit code {code})")
    return files


def gather(files):
    """By (client, server), by test: the runs, by seed."""
    pairs = {}
    for name in files:
        with open(name) as f:
            for one in json.load(f):
                pair = pairs.setdefault((one["client"], one["server"]), {})
                pair.setdefault(one["test"], {})[one["seed"]] = one
    return pairs


def verdict(runs):
    """One word for all runs of a test."""
    results = {r["result"] for r in runs.values()}
    return "fail" if "fail" in results else "pass" if "pass" in results else "unsupported"


def order(pair):
    """Courser as client first, then as server, then with itself."""
    client, server = pair
    return (client == US and server == US, client != US)


def table(pairs):
    columns = sorted(pairs, key=order)
    tests = list(dict.fromkeys(t for pair in columns for t in pairs[pair]))
    lines = ["| case | " + " | ".join(f"{c} → {s}" for c, s in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    failures, measured = [], []
    for test in tests:
        cells = []
        for pair in columns:
            runs = pairs[pair].get(test)
            if not runs:
                cells.append("")
                continue
            word = verdict(runs)
            cell = MARKS[word]
            values = sorted(r["value"] for r in runs.values() if r.get("value") is not None)
            if values and word == "pass":
                cell += f" {values[len(values) // 2]:.0f}"
                measured.append(test)
            if word == "fail":
                reasons = dict.fromkeys(r["reason"] for r in runs.values() if r["result"] == "fail")
                failures.append(f"- {test}, {pair[0]} → {pair[1]}: {'; '.join(reasons)}.")
                cell += f" ({len(failures)})"
            cells.append(cell)
        lines.append(f"| {test} | " + " | ".join(cells) + " |")
    count = [sum(verdict(r) == w for p in pairs.values() for r in p.values()) for w in MARKS]
    seeds = sorted({s for p in pairs.values() for r in p.values() for s in r})
    lines += ["", f"{count[0]} passed, {count[1]} failed, {count[2]} not supported by the peer; "
              f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}."]
    if measured:
        lines[-1] += f" {' and '.join(dict.fromkeys(measured))}: kbit/s."
    if failures:
        lines += ["", "What failed, as the runner said it:", ""] + failures
    return lines, len(failures)


def write(document, lines):
    with open(document) as f:
        text = f.read()
    if BEGIN not in text or END not in text:
        sys.exit(f"{document} lacks the lines {BEGIN!r} and {END!r} that the table goes between")
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    with open(document, "w") as f:
        f.write(head + BEGIN + "\n\n" + "\n".join(lines) + "\n\n" + END + tail)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("results", nargs="*", help="result files of the runner; without --runner")
    a.add_argument("--runner", help="program that runs two endpoints against each other")
    a.add_argument("--command", default=os.path.join(ROOT, "target/release/courser") + " interop", help="our endpoint")
    a.add_argument("--peers", default="quinn,quiche,aioquic", help="the runner's names of the others")
    a.add_argument("--tests", default="all")
    a.add_argument("--skip", default="", help="names of tests left out")
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--repeat", type=int, default=1)
    a.add_argument("--out", default=os.path.join(ROOT, "target/interop"), help="folder for results, and captures of what failed")
    a.add_argument("--document", default=os.path.join(ROOT, "docs/interop.md"), help="where the table goes ('-': to the terminal)")
    args = a.parse_args()
    if bool(args.results) == bool(args.runner):
        a.error("either --runner or result files")
    files = args.results
    if args.runner:
        if not os.path.exists(args.command.split()[0]):
            a.error(f"{args.command.split()[0]} is missing: cargo build --release -p courser-cli")
        os.makedirs(args.out, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            files = run(args, folder)
    lines, failed = table(gather(files))
    if args.document == "-":
        print("\n".join(lines))
    else:
        write(args.document, lines)
        print(f"written: {args.document}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
