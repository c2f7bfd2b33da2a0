#!/usr/bin/env python3
"""Break requirements that tests claim to check, and see whether those tests fail.

    breaks.py draw --seed N [--count 20]     prints requirements drawn from all that a test cites, and those tests
    breaks.py run --seed N [--count 20]      applies the break of each of them to a copy of the tree and runs its tests;
                                             writes docs/requirement-breaks.md; exit 1 when one is not noticed

A break is a patch that makes the product violate the requirement: tools/specs/breaks/DOC_SECTION-N.patch, made with
`git diff` against the commit in which it was added. It changes product code only. A drawn requirement without a patch, a
patch that does not apply and a tree that does not compile are errors, not catches.
Standard library only, Python 3.9 or later.
"""
import argparse
import datetime
import hashlib
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
import coverage  # noqa: E402

DOCUMENTS = ["rfc8899", "rfc8999", "rfc9000", "rfc9001", "rfc9002", "rfc9221", "rfc9287", "rfc9368", "rfc9369"]
REPORT = os.path.join(ROOT, "docs", "requirement-breaks.md")


def tested():
    """Requirements of the MUST class that tests cite: id, sentence, [(file, function)]."""
    reqs = coverage.load([os.path.join(HERE, t) for t in coverage.TABLES])
    state, _ = coverage.collect([ROOT], reqs)
    texts, out = {}, []
    for rid, r in sorted(reqs.items()):
        if r["class"] != "must" or rid.split("#")[0] not in DOCUMENTS:
            continue
        tests = []
        for place in state[rid]["test"]:
            rel, line = place.rsplit(":", 1)
            if rel not in texts:
                with open(os.path.join(ROOT, rel), encoding="utf-8") as f:
                    texts[rel] = f.read().split("\n")
            name = coverage.function_at(texts[rel], int(line) - 1)
            if name and (rel, name) not in tests:
                tests.append((rel, name))
        if tests:
            out.append((rid, r["sentence"], tests))
    return out


def draw(seed, count):
    """So many of them: the first in the order of a hash of seed and id, so that further citations change few draws."""
    return sorted(tested(), key=lambda one: hashlib.sha256(("%d %s" % (seed, one[0])).encode()).digest())[:count]


def patch_of(rid):
    return os.path.join(HERE, "breaks", rid.replace("#", "_") + ".patch")


def command(rel, name):
    """How cargo runs that test alone."""
    _, crate, kind, *rest = rel.split("/")
    target = ["--lib"] if kind == "src" else ["--test", rest[0].removesuffix(".rs")]
    return ["cargo", "test", "-q", "-p", crate] + target + ["--", name]


def try_break(tree, rid, tests):
    """What happened: "caught by …", or what went wrong, and whether it was noticed."""
    patch = patch_of(rid)
    if not os.path.exists(patch):
        return "no patch", False
    if subprocess.run(["git", "apply", patch], cwd=tree).returncode:
        return "the patch does not apply", False
    try:
        failed = []
        for rel, name in tests:
            call = command(rel, name)
            built = call[: call.index("--")] + ["--no-run"]
            if subprocess.run(built, cwd=tree, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
                return "it does not compile", False
            try:
                ran = subprocess.run(call, cwd=tree, capture_output=True, text=True, timeout=300)
            except subprocess.TimeoutExpired:
                failed.append(name + " (never ends)")
                continue
            if re.search(r"test result: FAILED", ran.stdout) or ran.returncode not in (0, 101):
                failed.append(name)
        return (", ".join("`%s`" % n for n in failed), True) if failed else ("**not noticed**", False)
    finally:
        subprocess.run(["git", "checkout", "-q", "."], cwd=tree, check=True)


def change_of(rid):
    """The changed lines of the patch, short."""
    if not os.path.exists(patch_of(rid)):
        return ""
    with open(patch_of(rid), encoding="utf-8") as f:
        lines = [x.rstrip() for x in f if re.match(r"^[+-](?![+-])", x)]
    return "<br>".join("`%s %s`" % (x[0], x[1:].strip().replace("|", "\\|")) for x in lines if x[1:].strip())


def run(seed, count):
    rows, missed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        tree = os.path.join(folder, "tree")
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, "HEAD"], cwd=ROOT, check=True)
        try:
            for n, (rid, sentence, tests) in enumerate(draw(seed, count), 1):
                said, noticed = try_break(tree, rid, tests)
                missed += not noticed
                print("%2d %-20s %s" % (n, rid, said), flush=True)
                rows.append((rid, sentence.replace("|", "\\|"), change_of(rid), said))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT)
    with open(REPORT, "w", encoding="utf-8") as f:
        f.write("# Broken requirements\n\n`python3 tools/specs/breaks.py run --seed %d`, %s: %d requirements drawn from "
                "%d that tests cite,\neach broken in the product, its tests run: %d of %d breaks were noticed.\n\n"
                % (seed, datetime.date.today(), count, len(tested()), count - missed, count))
        f.write("| Requirement | What it says | Break | Failed |\n|---|---|---|---|\n")
        for row in rows:
            f.write("| %s | %s | %s | %s |\n" % row)
    return 1 if missed else 0


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("what", choices=["draw", "run"])
    a.add_argument("--seed", type=int, required=True)
    a.add_argument("--count", type=int, default=20)
    args = a.parse_args()
    if args.what == "run":
        return run(args.seed, args.count)
    for rid, sentence, tests in draw(args.seed, args.count):
        print("%s%s\n    %s" % (rid, "" if os.path.exists(patch_of(rid)) else "  (no patch)", sentence))
        for rel, name in tests:
            print("    " + " ".join(command(rel, name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
