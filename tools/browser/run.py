#!/usr/bin/env python3
"""Headless Chromium against Courser: tools/browser/run.py --courser PROGRAM --echo PROGRAM [--chromium NAME]

    cargo build --release -p courser-cli
    cargo build --release -p courser --features h3 --example web_transport
    tools/browser/run.py --courser target/release/courser --echo target/release/examples/web_transport

A page that `courser serve` serves loads a hundred files and a download of 200 MB, posts a form to the echo server and talks to
it over WebTransport; it finds out by which protocol each of them came (`nextHopProtocol`), and tells this script. Needs
Debian's packages `chromium` and `openssl`. The exit code is 0 when everything came over h3 and was right.
"""
import argparse
import base64
import hashlib
import http.server
import json
import pathlib
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

FILES = 100
DOWNLOAD = 200_000_000

PAGE = """<!doctype html><meta charset="utf-8"><title>Courser</title><script>
const check = (what, ok) => { if (!ok) throw new Error(what); };
const protocol = url => performance.getEntriesByName(new URL(url, location).href).map(e => e.nextHopProtocol)[0];

async function files() {
  const sum = text => [...text].reduce((n, c) => (n * 31 + c.charCodeAt(0)) >>> 0, 7);
  const names = await (await fetch("names.json")).json();
  await Promise.all(Object.entries(names).map(async ([name, want]) => {
    const text = await (await fetch(name)).text();
    check("contents of " + name, sum(text) === want);
  }));
  const by = {};
  for (const name of Object.keys(names)) { const p = protocol(name) || "none"; by[p] = (by[p] || 0) + 1; }
  return by;
}

async function download(size) {
  const began = performance.now();
  const reader = (await fetch("large.bin")).body.getReader();
  let got = 0;
  for (;;) { const {done, value} = await reader.read(); if (done) break; got += value.length; }
  check("size of the download: " + got, got === size);
  return {bytes: got, ms: Math.round(performance.now() - began), protocol: protocol("large.bin")};
}

async function form(echo) {
  const fields = new URLSearchParams({name: "W\\u00fcrzburg", "a&b": "1 2"});
  const answer = await (await fetch(echo + "/form", {method: "POST", body: fields})).text();
  check("the form came back as " + answer, answer === fields.toString());
  return {answer, protocol: protocol(echo + "/form")};
}

async function readAll(stream) { return new Uint8Array(await new Response(stream).arrayBuffer()); }

async function transport(echo) {
  const session = new WebTransport(echo + "/echo");
  await session.ready;
  const sent = new Uint8Array(300000).map((_, i) => i * 7);
  const same = got => got.length === sent.length && got.every((b, i) => b === sent[i]);
  const both = await session.createBidirectionalStream();
  const writing = (async () => { const w = both.writable.getWriter(); await w.write(sent); await w.close(); })();
  check("the two-way stream", same(await readAll(both.readable)));
  await writing;
  const one = await session.createUnidirectionalStream();
  const w = one.getWriter(); await w.write(sent); await w.close();
  const incoming = session.incomingUnidirectionalStreams.getReader();
  check("the one-way stream", same(await readAll((await incoming.read()).value)));
  const datagrams = session.datagrams.writable.getWriter(), back = session.datagrams.readable.getReader();
  let heard = 0;
  for (let i = 0; i < 20; i++) {
    await datagrams.write(new Uint8Array([i, 1, 2]));
    const got = await Promise.race([back.read(), new Promise(r => setTimeout(r, 500, null))]);
    if (got && got.value[0] === i) heard++;
  }
  check("datagrams: " + heard, heard >= 15);
  session.close({closeCode: 42, reason: "all done"});
  await session.closed;
  return {datagrams: heard};
}

onload = async () => {
  const {echo, report, size} = await (await fetch("job.json")).json();
  const result = {page: performance.getEntriesByType("navigation")[0].nextHopProtocol};
  const parts = {files, download: () => download(size), form: () => form(echo), transport: () => transport(echo)};
  for (const [name, part] of Object.entries(parts)) {
    try { result[name] = await part(); } catch (e) { result[name] = {error: String(e)}; }
  }
  await fetch(report, {method: "POST", mode: "no-cors", body: JSON.stringify(result)});
};
</script>"""


def certificate(folder):
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "10",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out",
                    cert], check=True, stderr=subprocess.DEVNULL)
    public = subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"], check=True, capture_output=True).stdout
    return cert, key, base64.b64encode(hashlib.sha256(public).digest()).decode()


def page(folder, echo, report):
    www = folder / "www"
    www.mkdir()
    names = {}
    for i in range(FILES):
        text = f"file {i}: " + "abcdefghij" * (i * 13 % 400)
        value = 7
        for c in text:
            value = (value * 31 + ord(c)) & 0xFFFFFFFF
        names[f"f{i}.txt"] = value
        (www / f"f{i}.txt").write_text(text)
    (www / "names.json").write_text(json.dumps(names))
    (www / "job.json").write_text(json.dumps({"echo": echo, "report": report, "size": DOWNLOAD}))
    (www / "index.html").write_text(PAGE)
    with open(www / "large.bin", "wb") as f:
        f.truncate(DOWNLOAD)
    return www


def reports():
    """A server on the loopback interface that takes the page's report."""
    told = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            told.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return told, f"http://127.0.0.1:{server.server_address[1]}/"


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def faults(result, discover):
    yield from (f"{name}: {part['error']}" for name, part in result.items() if isinstance(part, dict) and "error" in part)
    if not discover and result.get("page") != "h3":
        yield f"the page came over {result.get('page')}"
    if not discover and result.get("files") != {"h3": FILES}:
        yield f"files came over {result.get('files')}"
    for part in ("download", "form"):
        if result.get(part, {}).get("protocol") != "h3":
            yield f"{part} came over {result.get(part, {}).get('protocol')}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--courser", required=True, help="the courser command")
    parser.add_argument("--echo", required=True, help="the example web_transport")
    parser.add_argument("--chromium", default=next((n for n in ("chromium", "chromium-browser") if shutil.which(n)), "chromium"))
    parser.add_argument("--discover", action="store_true",
                        help="let the browser come over TCP and find HTTP/3 by itself: the download has to be over h3 then")
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for the browser's log of the network")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        cert, key, pin = certificate(folder)
        told, report = reports()
        serve_port, echo_port = free_port(), free_port()
        www = page(folder, f"https://localhost:{echo_port}", report)
        running = [
            subprocess.Popen([args.courser, "serve", www, "--listen", f"127.0.0.1:{serve_port}", "--cert", cert, "--key", key],
                             stdout=subprocess.DEVNULL),
            subprocess.Popen([args.echo, f"127.0.0.1:{echo_port}", cert, key], stdout=subprocess.DEVNULL),
        ]
        try:
            time.sleep(1.5)
            # What only speaks HTTP/3 has to be named; what announces it (Alt-Svc) can be left to be found.
            quic = f"localhost:{echo_port}" + ("" if args.discover else f",localhost:{serve_port}")
            command = [args.chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-quic",
                       f"--user-data-dir={folder / 'profile'}", f"--origin-to-force-quic-on={quic}",
                       f"--ignore-certificate-errors-spki-list={pin}", "--disable-dev-shm-usage",
                       "--host-resolver-rules=MAP localhost 127.0.0.1", "--remote-debugging-port=0"]
            if args.keep:
                args.keep.mkdir(parents=True, exist_ok=True)
                command.append(f"--log-net-log={args.keep / 'net.json'}")
            running.append(subprocess.Popen([*command, f"https://localhost:{serve_port}/"],
                                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            try:
                result = told.get(timeout=args.timeout)
            except queue.Empty:
                sys.exit(f"the page did not report within {args.timeout:.0f} s; --keep FOLDER shows what the browser saw")
        finally:
            for process in reversed(running):
                process.terminate()
            for process in running:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
    print(json.dumps(result, indent=1))
    wrong = list(faults(result, args.discover))
    print("\n".join(wrong) if wrong else "everything came over h3" if not args.discover else "HTTP/3 was found", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
