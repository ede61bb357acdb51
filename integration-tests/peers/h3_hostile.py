"""Sends what no client should, and asks beside it as a good client: prints what the good ones saw, as JSON.

usage: h3_hostile.py HOST PORT HALF_OPEN_HANDSHAKES
"""

import json
import os
import random
import socket
import statistics
import sys
import time

from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.tls import Epoch

ADDRESS = (sys.argv[1], int(sys.argv[2]))
HALF_OPEN = int(sys.argv[3])
random.seed(6)


def varint(number):
    if number < 64:
        return bytes([number])
    return (number | 0x4000).to_bytes(2, "big")


class Client:
    "A client without a loop of its own."

    def __init__(self):
        configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="server.test", verify_mode=0)
        self.quic = QuicConnection(configuration=configuration)
        self.http = H3Connection(self.quic)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(ADDRESS)
        self.quic.connect(ADDRESS, now=time.monotonic())
        self.bodies, self.statuses, self.ended, self.mute = {}, {}, set(), False

    def send(self):
        for data, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            if not self.mute:
                self.socket.send(data)

    def step(self, limit):
        self.send()
        timer = self.quic.get_timer()
        wait = min(limit, max(0.0, (timer or 1e9) - time.monotonic()))
        self.socket.settimeout(max(wait, 0.001))
        try:
            self.quic.receive_datagram(self.socket.recv(65536), ADDRESS, now=time.monotonic())
        except (TimeoutError, ConnectionRefusedError):
            self.quic.handle_timer(now=time.monotonic())
        while (event := self.quic.next_event()) is not None:
            for found in self.http.handle_event(event):
                if isinstance(found, HeadersReceived):
                    self.statuses.setdefault(found.stream_id, dict(found.headers).get(b":status"))
                elif isinstance(found, DataReceived):
                    self.bodies[found.stream_id] = self.bodies.get(found.stream_id, 0) + len(found.data)
                if getattr(found, "stream_ended", False):
                    self.ended.add(found.stream_id)

    def begin(self, path):
        stream = self.quic.get_next_available_stream_id()
        head = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"server.test"), (b":path", path)]
        self.http.send_headers(stream, head, end_stream=True)
        return stream

    def get(self, path=b"/", limit=10.0):
        stream, end = self.begin(path), time.monotonic() + limit
        while stream not in self.ended and time.monotonic() < end:
            self.step(end - time.monotonic())
        return stream in self.ended and self.statuses.get(stream) == b"200"


def good(count):
    "Times of whole connections with one request, in milliseconds; None for a failure."
    times = []
    for _ in range(count):
        start = time.monotonic()
        client = Client()
        served = client.get()
        times.append((time.monotonic() - start) * 1000 if served else None)
        client.quic.close()
        client.send()
        client.socket.close()
    return times


def summary(times):
    served = [one for one in times if one is not None]
    return {"failed": times.count(None), "median_ms": round(statistics.median(served), 2) if served else None}


def hello():
    "The bytes of one ClientHello and the connection id it speaks of."
    client = Client()
    taken = bytes(client.quic._crypto_streams[Epoch.INITIAL].sender._buffer)
    if not taken:
        client.quic.datagrams_to_send(now=time.monotonic())
        taken = bytes(client.quic._crypto_streams[Epoch.INITIAL].sender._buffer)
    return taken, client.quic.host_cid


def initial(crypto, source):
    "An Initial of a connection of its own, which nobody will go on with."
    destination = os.urandom(8)
    keys = CryptoPair()
    keys.setup_initial(cid=destination, is_client=True, version=1)
    frame = b"\x06\x00" + varint(len(crypto) | 0) + crypto
    header = b"\xc1" + (1).to_bytes(4, "big") + b"\x08" + destination + bytes([len(source)]) + source + b"\x00"
    room = 1200 - len(header) - 2 - 2 - 16
    payload = frame + bytes(room - len(frame))
    header += (2 + len(payload) + 16 | 0x4000).to_bytes(2, "big") + b"\x00\x00"
    return keys.encrypt_packet(header, payload, 0)


found = {"before": summary(good(10))}
raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
raw.connect(ADDRESS)


def throw(data):
    try:
        raw.send(data)
    except OSError:
        pass


for number in range(3000):
    throw(random.randbytes(random.choice((0, 1, 7, 20, 21, 100, 1199, 1200, 1400))))
    if number % 100 == 0:
        time.sleep(0.002)
found["after_random"] = summary(good(5))

crypto, source = hello()
whole = initial(crypto, source)
for cut in range(0, 1200, 7):
    throw(whole[:cut])
for place in range(0, 1200, 11):
    throw(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
found["after_truncated"] = summary(good(5))

raw.settimeout(2)
while True:
    raw.setblocking(False)
    try:
        raw.recv(65536)
    except (BlockingIOError, ConnectionRefusedError):
        break
raw.settimeout(2)
unknown = b"\xc0\x1a\x2a\x3a\x4a\x08" + b"d" * 8 + b"\x08" + b"s" * 8
throw(unknown + bytes(1200))
answer = raw.recv(65536)
found["version_negotiation"] = {
    "version": answer[1:5].hex(),
    "ids": answer[5:23] == b"\x08" + b"s" * 8 + b"\x08" + b"d" * 8,
    "offers_1": (1).to_bytes(4, "big") in [answer[at : at + 4] for at in range(23, len(answer), 4)],
}
throw(unknown)
raw.settimeout(0.3)
try:
    found["version_negotiation"]["for_small"] = len(raw.recv(65536))
except TimeoutError:
    found["version_negotiation"]["for_small"] = 0
throw(bytes([0x80 | 0x40]) + bytes(4) + unknown[5:] + bytes(1200))
try:
    found["version_negotiation"]["for_itself"] = len(raw.recv(65536))
except TimeoutError:
    found["version_negotiation"]["for_itself"] = 0

mute = []
for _ in range(5):
    client = Client()
    client.get()
    client.begin(b"/large")
    client.send()
    client.mute = True
    mute.append(client)
found["beside_mute"] = summary(good(5))

start, sent, times = time.monotonic(), 0, []
while sent < HALF_OPEN:
    for _ in range(min(100, HALF_OPEN - sent)):
        throw(initial(crypto, source))
        sent += 1
    times += good(1)
found["half_open"] = {"sent": sent, "seconds": round(time.monotonic() - start, 1), "good": summary(times)}
found["after_all"] = summary(good(5))
print(json.dumps(found))
