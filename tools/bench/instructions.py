#!/usr/bin/env python3
"""Counts the instructions of the hot paths and compares them with the table in docs/instructions.tsv.

    tools/bench/instructions.py [--update] [--only PATH] [--band PERCENT]

Each path of `crates/courser-core/examples/hot_paths.rs` runs under Callgrind at two lengths; what the longer run has more, divided by the
units it did more, has neither start nor end in it. What functions of the core take is counted, with what was inlined into them,
without the null provider and the loop around. Such counts are the same on a busy machine and differ by far less than one per
cent between machines with one compiler. The table says which compiler it was made with: with another one differences are
printed, but are no failure.

Exit code: 0 when all is within the band (or cannot be judged, which is said), 1 when a path costs more, 2 when something is
missing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "instructions.tsv"
# Rounds of the shorter run; the longer one has twice as many.
ROUNDS = {"bulk": 100, "bulk-owned": 100, "bulk-lossy": 200, "streams-100": 60, "requests-32": 100, "requests-1": 1000,
          "datagrams-160": 200, "handshakes": 300}
UNITS = {"bulk": "datagram", "bulk-owned": "datagram", "bulk-lossy": "datagram", "streams-100": "datagram",
         "requests-32": "request", "requests-1": "request", "datagrams-160": "message", "handshakes": "handshake"}
# More than this is a loss.
BAND = 3.0


def fail(sentence):
    print(f"instructions.py: {sentence}", file=sys.stderr)
    sys.exit(2)


def build():
    command = ["cargo", "build", "--release", "-p", "courser-core", "--example", "hot_paths", "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        fail("the benchmark does not build")
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message["target"]["name"] == "hot_paths":
            return message["executable"]
    return fail("cargo names no executable")


def cost_of_core(profile):
    """Instructions in functions of the core, from a file of Callgrind."""
    names, ours, cost, skip = {}, False, 0, False
    with open(profile, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("fn="):
                number, _, name = line[3:].strip().partition(" ")
                if name:
                    names[number] = "courser_core" in name and "protect::null" not in name
                ours = names[number]
            elif line.startswith(("cfn=", "cfi=", "cob=", "cfl=")):
                number, _, name = line[4:].strip().partition(" ")
                if name and line.startswith("cfn="):
                    names[number] = "courser_core" in name and "protect::null" not in name
            elif line.startswith("calls="):
                # The next line is what the callee took.
                skip = True
            elif line[:1] in "0123456789+-*":
                if ours and not skip:
                    cost += int(line.split()[1])
                skip = False
    return cost


def collect(binary, path, rounds):
    """(instructions, units) of a run."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", binary, path, str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            fail(f"{path} does not run under valgrind:\n{done.stderr[-2000:]}")
        return cost_of_core(f"{folder}/out"), int(done.stdout)


def measure(binary, path):
    """Instructions for each unit of a path."""
    short, long = (collect(binary, path, n * ROUNDS[path]) for n in (1, 2))
    return (long[0] - short[0]) / (long[1] - short[1])


def compiler():
    return subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def read_table():
    if not TABLE.exists():
        return "", {}
    made_with, rows = "", {}
    for line in TABLE.read_text().splitlines():
        if line.startswith("# made with "):
            made_with = line.removeprefix("# made with ")
        elif line and not line.startswith("#"):
            path, count, _ = line.split("\t")
            rows[path] = float(count)
    return made_with, rows


def write_table(counts):
    lines = ["# Instructions of the core on the hot paths, both ends together, written by tools/bench/instructions.py --update.",
             f"# made with {compiler()}", *(f"{p}\t{c:.0f}\tper {UNITS[p]}" for p, c in counts.items())]
    TABLE.write_text("\n".join(lines) + "\n")


def main():
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--update", action="store_true", help="write the table")
    ask.add_argument("--only", choices=ROUNDS, help="one path")
    ask.add_argument("--band", type=float, default=BAND, help=f"per cent that are no loss ({BAND})")
    said = ask.parse_args()
    if not shutil.which("valgrind"):
        fail("valgrind is missing; install it, for example with: apt-get install valgrind")
    binary = build()
    paths = [said.only] if said.only else list(ROUNDS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = dict(zip(paths, pool.map(lambda path: measure(binary, path), paths)))
    made_with, before = read_table()
    judged = made_with == compiler()
    print(f"{'path':15} {'instructions':>12} {'table':>8} {'change':>8}")
    worse = []
    for path, count in counts.items():
        was = before.get(path)
        change = 100 * (count / was - 1) if was else 0.0
        print(f"{path:15} {count:12.0f} {was or 0:8.0f} {change:+7.1f} %  per {UNITS[path]}")
        if was and change > said.band:
            worse.append(path)
    if said.update:
        write_table({**before, **counts})
        print(f"written: {TABLE.relative_to(ROOT)}")
    elif not judged:
        print(f"not judged: the table was made with {made_with or 'nothing'}, this is {compiler()}")
    elif worse:
        print(f"more than {said.band} % worse: {', '.join(worse)}. If that is meant, say why and run with --update.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
