#!/usr/bin/env python3
"""A perf server and a perf client on aioquic, for smoke runs over loopback.

Usage:
    aioquic_perf.py server PORT            prints "ready" when the socket is bound
    aioquic_perf.py client PORT DOWN UP    exit code 0 when DOWN bytes and the end came
"""
import asyncio
import datetime
import os
import ssl
import sys
import tempfile

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ALPN = ["perf"]
CHUNK = 1 << 16


def write_certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    cert = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256()))
    paths = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    with open(paths[0], "wb") as f:
        f.write(cert.public_bytes(serialization.Encoding.PEM))
    with open(paths[1], "wb") as f:
        f.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                  serialization.NoEncryption()))
    return paths


class Server(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.heads = {}

    def quic_event_received(self, event):
        if not isinstance(event, StreamDataReceived):
            return
        head = self.heads.get(event.stream_id, b"")
        self.heads[event.stream_id] = (head + event.data)[:8] if len(head) < 8 else head
        if event.end_stream and len(self.heads[event.stream_id]) == 8:
            wanted = int.from_bytes(self.heads.pop(event.stream_id), "big")
            self._quic.send_stream_data(event.stream_id, bytes(wanted), end_stream=True)


async def run_server(port):
    configuration = QuicConfiguration(is_client=False, alpn_protocols=ALPN)
    with tempfile.TemporaryDirectory() as folder:
        configuration.load_cert_chain(*write_certificate(folder))
    await serve("127.0.0.1", port, configuration=configuration, create_protocol=Server)
    print("ready", flush=True)
    await asyncio.Event().wait()


async def run_client(port, down, up):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=ALPN, verify_mode=ssl.CERT_NONE,
                                      server_name="localhost")
    async with connect("127.0.0.1", port, configuration=configuration) as client:
        reader, writer = await client.create_stream()
        writer.write(down.to_bytes(8, "big"))
        for at in range(0, up, CHUNK):
            writer.write(bytes(min(CHUNK, up - at)))
            await asyncio.sleep(0)
        writer.write_eof()
        got = 0
        while True:
            data = await reader.read(CHUNK)
            if not data:
                break
            got += len(data)
    if got != down:
        sys.exit("%d of %d bytes came" % (got, down))


async def patiently(port, down, up):
    """The server may still be starting."""
    for attempt in range(5):
        try:
            return await asyncio.wait_for(run_client(port, down, up), 60)
        except (ConnectionError, asyncio.TimeoutError) as error:
            last = error
            await asyncio.sleep(1)
    sys.exit("no transfer: %r" % last)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "server":
        asyncio.run(run_server(int(sys.argv[2])))
    elif len(sys.argv) == 5 and sys.argv[1] == "client":
        asyncio.run(patiently(*map(int, sys.argv[2:])))
    else:
        sys.exit(__doc__)
