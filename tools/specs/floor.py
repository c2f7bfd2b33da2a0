#!/usr/bin/env python3
"""Print the floor that today's citations would hold, in the form of spec-floor.txt.

Usage: floor.py TREE
"""
import json
import os
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
with tempfile.TemporaryDirectory() as folder:
    out = os.path.join(folder, "coverage.json")
    subprocess.run([sys.executable, os.path.join(here, "coverage.py"), sys.argv[1], "--json", out],
                   stdout=subprocess.DEVNULL, check=True)
    with open(out, encoding="utf-8") as f:
        documents = json.load(f)["documents"]
print("# Requirements of the MUST class that are tested or excepted, at least. Only rises: tools/specs/floor.py prints today's.")
for name, classes in sorted(documents.items()):
    if classes["must"]["covered"]:
        print(name, classes["must"]["covered"])
