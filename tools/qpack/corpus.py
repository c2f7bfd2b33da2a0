#!/usr/bin/env python3
"""The offline interop of QPACK encoders and decoders.

    corpus.py pack FOLDER OUT     packs the chosen files of FOLDER into crates/courser-h3/testdata/qpack-interop
    corpus.py sizes FOLDER        a table: bytes of each encoder's files beside ours (Markdown)
    corpus.py check FOLDER        what our encoder makes of all lists at all limits is decoded by pylsqpack

FOLDER is a checkout of github.com/qpackers/qifs in the shape `qifs/*.qif`, `encoded/ENCODER/QIF.out.CAPACITY.BLOCKED.ACK`,
`errors/err*`. `check` needs pylsqpack (`pip install pylsqpack`, ls-qpack's decoder); it and `sizes` build the example `qif`.
"""
import pathlib
import struct
import subprocess
import sys
import tempfile

LIMITS = [(c, b, a) for c in (0, 256, 512, 4096) for b in (0, 100) for a in (0, 1)]
EXAMPLE = ["cargo", "run", "-q", "-p", "courser-h3", "--example", "qif", "--"]


def chosen(path):
    """All of netbsd, of the larger lists those that use the table most."""
    return path.name.startswith(("netbsd", "err")) or path.name.endswith(("4096.100.1", "4096.0.1")) or (
        path.parent.name == "ls-qpack" and path.name == "fb-req-hq.out.256.100.1")


def pack(folder, out):
    bundle = b""
    files = sorted(folder.glob("encoded/*/*")) + sorted(folder.glob("errors/err*"))
    for path in filter(chosen, files):
        name = f"{path.parent.name}/{path.name}".encode()
        data = path.read_bytes()
        bundle += bytes([len(name)]) + name + struct.pack(">I", len(data)) + data
    (out / "encoded.bin").write_bytes(bundle)
    for path in folder.glob("qifs/*.qif"):
        if path.stem != "draft-examples":
            (out / path.name).write_bytes(path.read_bytes())


def sizes(folder):
    ours = {}
    for path in sorted(folder.glob("qifs/*.qif")):
        lines = subprocess.run([*EXAMPLE, "sizes", path], check=True, capture_output=True, text=True).stdout
        ours |= dict(line.split("\t") for line in lines.splitlines())
    encoders = sorted(path.name for path in folder.glob("encoded/*"))
    print("| list, capacity, blocked streams, acknowledgments |", " | ".join(["Courser", *encoders]), "|")
    print("|---|" + "--:|" * (len(encoders) + 1))
    for name, bytes_ in ours.items():
        others = [folder / "encoded" / encoder / name for encoder in encoders]
        if any(path.exists() for path in others):
            row = [bytes_] + [str(path.stat().st_size) if path.exists() else "" for path in others]
            print("|", name.replace(".out.", " "), "|", " | ".join(row), "|")


def records(data):
    while data:
        stream, length = struct.unpack(">QI", data[:12])
        yield stream, data[12:12 + length]
        data = data[12 + length:]


def lists(text):
    found = [[tuple(line.split("\t", 1)) for line in part.splitlines() if not line.startswith("#")]
             for part in text.strip("\n").split("\n\n")]
    return [part for part in found if part]


def decoded(data, capacity, blocked):
    import pylsqpack
    decoder = pylsqpack.Decoder(capacity, blocked)
    out = {}
    for stream, body in records(data):
        if stream == 0:
            for unblocked in decoder.feed_encoder(body):
                out[unblocked] = decoder.resume_header(unblocked)[1]
            continue
        try:
            out[stream] = decoder.feed_header(stream, body)[1]
        except pylsqpack.StreamBlocked:
            pass
    return [[(n.decode(), v.decode()) for n, v in out[stream]] for stream in sorted(out)]


def check(folder):
    good = 0
    for path in sorted(folder.glob("qifs/*.qif")):
        expected = lists(path.read_text())
        for capacity, blocked, acks in LIMITS:
            with tempfile.NamedTemporaryFile() as out:
                subprocess.run([*EXAMPLE, "encode", path, str(capacity), str(blocked), str(acks), out.name], check=True)
                if decoded(pathlib.Path(out.name).read_bytes(), capacity, blocked) != expected:
                    sys.exit(f"{path.name} at {capacity}.{blocked}.{acks} differs")
                good += 1
    print(good, "files decoded to their lists")


if __name__ == "__main__":
    command, folder, *rest = sys.argv[1:] if len(sys.argv) > 2 else sys.exit(__doc__)
    folder = pathlib.Path(folder)
    {"pack": lambda: pack(folder, pathlib.Path(rest[0])), "sizes": lambda: sizes(folder), "check": lambda: check(folder)}[command]()
