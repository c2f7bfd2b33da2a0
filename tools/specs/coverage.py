#!/usr/bin/env python3
"""Check citations of specification requirements in a source tree.

Usage:
    coverage.py TREE [TREE...]           table per document; exit 1 on any error
    coverage.py TREE --missing rfc9000   list the requirements of a document that lack something
    coverage.py TREE --min-test 80       exit 1 when fewer than 80 % of the MUST class are tested or excepted
    coverage.py TREE --require FILE      FILE: one "DOC MIN_MUST_COVERED" per line (a floor that only goes up)
    coverage.py TREE --list              every cited requirement with its places and the functions around them, and how
                                         many of the MUST class are cited nowhere
    coverage.py TREE --json FILE         the same facts as JSON
    coverage.py --show rfc9000#4.1-3     print requirements (an id, or a DOC#SECTION prefix)

Citations are line comments, in any language whose line comment starts with //, #, -- or ;

    code //= rfc9000#4.1-3                              implementation
    code //= rfc9000#4.1-3, rfc9000#4.1-4               several
    code //= rfc9000#4.1-3 type=test                    test
    code //= rfc9000#4.1-3 type=exception reason="..."  a requirement deliberately not met, or not ours to meet
    code //= rfc9000#4.1-3 type=todo                    not done yet; counts as nothing, is listed

A citation without a type is a test when its file lies under a directory named tests, test or fuzz, or the file
is named tests.rs, test_*.py, *_test.*, *_tests.*; or when it stands just above a function marked #[test],
#[tokio::test], #[rstest] or a proptest!, inside such a function, or inside a #[cfg(test)] module. Otherwise it is
an implementation.

Exceptions for a whole section or document go into a TSV file (default: spec-exceptions.tsv at the tree's root):
    ID-or-prefix <tab> reason           prefixes: "rfc8899#6.1", "rfc9000#22", "rfc9438"
A prefix covers the section and its subsections; an id covers one requirement. A row that covers a requirement
that is also cited as tested is reported as stale. Reasons shorter than 10 characters are errors.

Only citations of known ids are accepted: an unknown id is an error.
Standard library only, Python 3.9 or later; nothing is fetched.
"""
import argparse
import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TABLES = ["requirements.tsv", "requirements-extra.tsv"]
SOURCE = (".rs", ".py", ".c", ".h", ".sh", ".toml", ".go", ".ts", ".js")
SKIP_DIRS = {".git", "target", "node_modules", ".venv", "__pycache__"}

CITE = re.compile(r"^\s*(?:///?|//!|#|--|;)=\s*(\S.*?)\s*$")
ID = r"[A-Za-z][A-Za-z0-9-]*#[0-9A-Z]+(?:\.[0-9]+)*-[0-9]+"
IDS = re.compile(r"^(%s(?:\s*,\s*%s)*)(.*)$" % (ID, ID))
ATTR = re.compile(r"\s+(type|reason|issue)=(\"(?:[^\"\\]|\\.)*\"|\S+)")
TESTMARK = re.compile(r"^\s*(#\[(?:\w+::)*(?:test|rstest|case|quickcheck|test_case)\b|proptest!|fuzz_target!|def test_)")
ITEM = re.compile(r"^\s*(?:pub(?:\([^)]*\))?\s+)?(?:unsafe\s+)?(?:async\s+)?(?:const\s+)?"
                  r"(?:fn|struct|enum|impl|trait|mod|use|static|let|match|if|while|for|return)\b")
TYPES = {"implementation", "test", "exception", "todo"}
MIN_REASON = 10


def load(tables):
    reqs = {}
    for path in tables:
        if not os.path.exists(path):
            continue
        with open(path, encoding="utf-8") as f:
            head = f.readline().rstrip("\n").split("\t")
            for line in f:
                r = dict(zip(head, line.rstrip("\n").split("\t")))
                reqs[r["id"]] = r
    return reqs


def is_test_file(rel):
    parts = rel.replace("\\", "/").split("/")
    name = parts[-1]
    return (any(p in ("tests", "test", "fuzz") for p in parts[:-1]) or name == "tests.rs"
            or name.startswith("test_") or re.search(r"_tests?\.\w+$", name) is not None)


def in_test(lines, i):
    """Above a test function, inside one, or inside a #[cfg(test)] module (by convention the end of the file)."""
    indent = len(lines[i]) - len(lines[i].lstrip())
    for line in lines[i + 1:i + 13]:
        if TESTMARK.match(line):
            return True
        if ITEM.match(line) or line.strip() and len(line) - len(line.lstrip()) < indent:
            break
    own_fn = True
    for j in range(i - 1, -1, -1):
        line = lines[j]
        if re.match(r"^\s*#\[cfg\((?:all\()?test\b", line) and any(
                re.match(r"\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+\w+\s*\{", x) for x in lines[j + 1:j + 4]):
            return True
        lead = len(line) - len(line.lstrip())
        if own_fn and line.strip() and lead < indent and re.search(r"\bfn\s+\w+", line):
            own_fn = False
            for up in range(j - 1, max(-1, j - 8), -1):
                if TESTMARK.match(lines[up]):
                    return True
                if not re.match(r"^\s*(#\[|//)", lines[up]):
                    break
    return False


def scan_text(rel, text, errors):
    """Yield (ids, type, reason, place)."""
    lines = text.split("\n")
    for i, line in enumerate(lines):
        m = CITE.match(line)
        if not m or "#" not in m.group(1):
            continue
        place = "%s:%d" % (rel, i + 1)
        body = m.group(1)
        mm = IDS.match(body)
        if not mm:
            # something that is plainly meant as ours but does not parse
            if re.match(r"(?:rfc\d+|[a-z][a-z0-9-]+)#\S", body) and "://" not in body:
                errors.append("%s: cannot read citation: %s" % (place, body))
            continue
        rest = mm.group(2)
        attrs = {k: v.strip('"') for k, v in ATTR.findall(rest)}
        if ATTR.sub("", rest).strip():
            errors.append("%s: cannot read: %s" % (place, ATTR.sub("", rest).strip()))
            continue
        kind = attrs.get("type")
        if kind is None:
            kind = "test" if is_test_file(rel) or in_test(lines, i) else "implementation"
        if kind not in TYPES:
            errors.append("%s: unknown type %s" % (place, kind))
            continue
        reason = attrs.get("reason", "")
        if kind == "exception" and len(reason) < MIN_REASON:
            errors.append("%s: exception without a reason" % place)
            continue
        yield [x.strip() for x in mm.group(1).split(",")], kind, reason, place


FUNCTION = re.compile(r"^(\s*).*\bfn\s+(\w+)\s*[(<]")


def function_at(lines, i):
    """The function that a citation stands above or in; empty when there is none."""
    for line in lines[i + 1:i + 9]:
        found = FUNCTION.match(line)
        if found:
            return found.group(2)
        if line.strip() and not re.match(r"^\s*(#\[|//|[)\]])", line):
            break
    indent = len(lines[i]) - len(lines[i].lstrip())
    for line in reversed(lines[:i]):
        found = FUNCTION.match(line)
        if found and len(found.group(1)) < indent:
            return found.group(2)
    return ""


def print_list(reqs, state, trees):
    """Every cited requirement, where it is met and tested, and the count of the others of the MUST class."""
    texts = {}
    for rid, r in reqs.items():
        s = state[rid]
        if not any(s.values()):
            continue
        print("%s [%s]" % (rid, r["level"]))
        for kind in ("implementation", "test", "exception", "todo"):
            for place in s[kind]:
                rel, line = place.rsplit(":", 1)
                if rel not in texts:
                    paths = [os.path.join(t, rel) for t in trees if os.path.exists(os.path.join(t, rel))]
                    texts[rel] = open(paths[0], encoding="utf-8").read().split("\n") if paths else []
                name = function_at(texts[rel], int(line) - 1) if texts[rel] else ""
                print("    %-14s %s %s" % (kind, place, name))
    bare = [rid for rid, r in reqs.items() if r["class"] == "must" and not any(state[rid].values())]
    print("%d requirements of the MUST class are cited nowhere" % len(bare))


def walk(tree):
    for base, dirs, files in os.walk(tree):
        dirs[:] = sorted(d for d in dirs if d not in SKIP_DIRS)
        for name in sorted(files):
            if name.endswith(SOURCE):
                path = os.path.join(base, name)
                yield os.path.relpath(path, tree), path


def matches(prefix, rid):
    if "#" not in prefix:
        return rid.startswith(prefix + "#")
    if rid == prefix:
        return True
    doc, sec = prefix.split("#", 1)
    rdoc, rest = rid.split("#", 1)
    rsec = rest.rsplit("-", 1)[0]
    return doc == rdoc and (rsec == sec or rsec.startswith(sec + "."))


def read_exceptions(path, reqs, errors):
    out = []
    if not path or not os.path.exists(path):
        return out
    with open(path, encoding="utf-8") as f:
        for n, line in enumerate(f, 1):
            line = line.rstrip("\n")
            if not line.strip() or line.startswith("#"):
                continue
            place = "%s:%d" % (os.path.basename(path), n)
            if "\t" not in line:
                errors.append("%s: no tab between id and reason" % place)
                continue
            prefix, reason = line.split("\t", 1)
            prefix, reason = prefix.strip(), reason.strip()
            hit = [r for r in reqs if matches(prefix, r)]
            if not hit:
                errors.append("%s: unknown id or section %s" % (place, prefix))
            if len(reason) < MIN_REASON:
                errors.append("%s: exception without a reason" % place)
                continue
            for r in hit:
                out.append((r, reason, place))
    return out


def collect(trees, reqs, exc_file=None):
    errors = []
    state = {r: {"test": [], "implementation": [], "exception": [], "todo": []} for r in reqs}
    for tree in trees:
        for rel, path in walk(tree):
            try:
                with open(path, encoding="utf-8") as f:
                    text = f.read()
            except UnicodeDecodeError:
                continue
            if "=" not in text or "#" not in text:
                continue
            for ids, kind, reason, place in scan_text(rel, text, errors):
                for rid in ids:
                    if rid not in reqs:
                        errors.append("%s: unknown id %s" % (place, rid))
                    else:
                        state[rid][kind].append(place)
    files = [exc_file] if exc_file else [os.path.join(t, "spec-exceptions.tsv") for t in trees]
    for path in files:
        for rid, reason, place in read_exceptions(path, reqs, errors):
            state[rid]["exception"].append(place)
    for rid, s in state.items():
        if s["exception"] and s["test"]:
            errors.append("%s: excepted at %s but tested at %s" % (rid, s["exception"][0], s["test"][0]))
    return state, errors


def summary(reqs, state):
    docs = {}
    for rid, r in reqs.items():
        doc = rid.split("#")[0]
        d = docs.setdefault(doc, {c: {"total": 0, "test": 0, "implementation": 0, "exception": 0, "covered": 0,
                                      "both": 0, "todo": 0} for c in ("must", "should")})
        c, s = d[r["class"]], state[rid]
        c["total"] += 1
        for k in ("test", "implementation", "exception", "todo"):
            c[k] += bool(s[k])
        c["both"] += bool(s["test"] and s["implementation"])
        c["covered"] += bool(s["test"] or s["exception"])
    return docs


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("tree", nargs="*")
    ap.add_argument("--tables", nargs="*", default=[os.path.join(HERE, t) for t in TABLES])
    ap.add_argument("--exceptions")
    ap.add_argument("--missing", metavar="DOC")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--what", choices=["test", "implementation", "any"], default="test")
    ap.add_argument("--show", metavar="ID")
    ap.add_argument("--min-test", type=float, metavar="PERCENT")
    ap.add_argument("--require", metavar="FILE")
    ap.add_argument("--docs", help="comma separated; default: the documents of requirements.tsv and any cited one")
    ap.add_argument("--json")
    a = ap.parse_args()
    reqs = load(a.tables)
    if not reqs:
        sys.exit("no requirements table found")
    if a.show:
        hit = [r for r in reqs if r == a.show or matches(a.show, r)]
        for r in hit:
            print("%s [%s] %s" % (r, reqs[r]["level"], reqs[r]["sentence"]))
            if reqs[r]["list"]:
                print("    " + reqs[r]["list"])
        return 0 if hit else 1
    if not a.tree:
        ap.error("no source tree given")
    state, errors = collect(a.tree, reqs, a.exceptions)
    docs = summary(reqs, state)
    main_docs = {r.split("#")[0] for r in load(a.tables[:1])}
    wanted = a.docs.split(",") if a.docs else [d for d in docs if d in main_docs or any(
        docs[d][c][k] for c in ("must", "should") for k in ("test", "implementation", "exception", "todo"))]
    if a.list:
        print_list(reqs, state, a.tree)
    elif a.missing:
        for rid, r in reqs.items():
            s = state[rid]
            if not rid.startswith(a.missing + "#") or s["exception"]:
                continue
            lacks = {"test": not s["test"], "implementation": not s["implementation"],
                     "any": not (s["test"] or s["implementation"])}[a.what]
            if lacks:
                print("%s [%s]%s %s" % (rid, r["level"], " (todo)" if s["todo"] else "", r["sentence"]))
    else:
        print("%-16s %5s | %5s %5s %5s %5s %7s | %6s %5s %5s" % (
            "document", "MUST", "test", "impl", "both", "exc", "covered", "SHOULD", "test", "exc"))
        tot = [0] * 9
        for d in wanted:
            m, s = docs[d]["must"], docs[d]["should"]
            row = [m["total"], m["test"], m["implementation"], m["both"], m["exception"], m["covered"],
                   s["total"], s["test"], s["exception"]]
            tot = [x + y for x, y in zip(tot, row)]
            print_row(d, row)
        print_row("total", tot)
    failed = bool(errors)
    for e in errors:
        print("error: " + e, file=sys.stderr)
    t = sum(docs[d]["must"]["total"] for d in wanted)
    cov = sum(docs[d]["must"]["covered"] for d in wanted)
    if a.min_test is not None and t and 100.0 * cov / t < a.min_test:
        print("error: %.1f %% of the MUST class covered, %.1f %% required" % (100.0 * cov / t, a.min_test), file=sys.stderr)
        failed = True
    if a.require:
        with open(a.require, encoding="utf-8") as f:
            for line in f:
                p = line.split("#")[0].split()
                if len(p) == 2:
                    have = docs.get(p[0], {"must": {"covered": 0}})["must"]["covered"]
                    if have < int(p[1]):
                        print("error: %s: %d of the MUST class covered, floor is %s" % (p[0], have, p[1]), file=sys.stderr)
                        failed = True
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump({"documents": docs, "errors": errors,
                       "requirements": {r: s for r, s in state.items() if any(s.values())}}, f, indent=1, sort_keys=True)
    return 1 if failed else 0


def print_row(name, row):
    pct = "%5.1f%%" % (100.0 * row[5] / row[0]) if row[0] else "-"
    print("%-16s %5d | %5d %5d %5d %5d %7s | %6d %5d %5d" % (name, row[0], row[1], row[2], row[3], row[4], pct,
                                                            row[6], row[7], row[8]))


if __name__ == "__main__":
    sys.exit(main())
