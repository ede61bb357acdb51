"""A client of aioquic, whose HTTP/3 layer checks what it gets: prints what became of its requests, as JSON.

usage: h3_client.py HOST PORT CA
"""

import asyncio
import json
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamReset

HOST, PORT, CA = sys.argv[1], int(sys.argv[2]), sys.argv[3]
tickets = []


class Client(QuicConnectionProtocol):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.http = H3Connection(self._quic)
        self.messages, self.early, self.closed = {}, None, None

    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            self.early = event.early_data_accepted
        if isinstance(event, ConnectionTerminated):
            self.closed = f"{event.error_code:#x} {event.reason_phrase}"
            for message in self.messages.values():
                message["end"].set()
        if isinstance(event, StreamReset) and event.stream_id in self.messages:
            self.messages[event.stream_id]["reset"] = event.error_code
            self.messages[event.stream_id]["end"].set()
        for found in self.http.handle_event(event):
            message = self.messages.get(found.stream_id)
            if message is None:
                continue
            if isinstance(found, HeadersReceived):
                fields = {name.decode(): value.decode() for name, value in found.headers}
                message["trailers" if "status" in message else "head"] = fields
                if ":status" in fields and not fields[":status"].startswith("1"):
                    message["status"] = int(fields[":status"])
            elif isinstance(found, DataReceived):
                message["body"] += found.data
                message["some"].set()
            if getattr(found, "stream_ended", False):
                message["end"].set()

    def begin(self, method, path, body=b"", trailers=()):
        stream = self._quic.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", "server.test"), (":path", path)]
        self.messages[stream] = {"body": bytearray(), "end": asyncio.Event(), "some": asyncio.Event(), "reset": None}
        encode = lambda fields: [(name.encode(), value.encode()) for name, value in fields]
        self.http.send_headers(stream, encode(head), end_stream=not body and not trailers)
        if body:
            self.http.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self.http.send_headers(stream, encode(trailers), end_stream=True)
        self.transmit()
        return stream

    async def end(self, stream):
        await asyncio.wait_for(self.messages[stream]["end"].wait(), 30)
        message = self.messages[stream]
        if message["reset"] is not None:
            return f"reset {message['reset']:#x}"
        return [message.get("status"), message["body"].decode() if len(message["body"]) < 1000 else len(message["body"])]

    async def get(self, *request):
        return await self.end(self.begin(*request))

    async def rebind(self):
        "The connection goes on from another port."
        client = self

        class Forward(asyncio.DatagramProtocol):
            def datagram_received(self, data, address):
                client.datagram_received(data, address)

        loop = asyncio.get_running_loop()
        old = self._transport
        family = old.get_extra_info("socket").family
        local = ("::", 0) if family.name == "AF_INET6" else ("0.0.0.0", 0)
        self._transport, _ = await loop.create_datagram_endpoint(Forward, local_addr=local)
        return old


def configuration(ticket=None):
    made = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="server.test", session_ticket=ticket)
    made.load_verify_locations(CA)
    made.max_data, made.max_stream_data = 4 << 20, 2 << 20
    return made


def dial(ticket=None, wait=True):
    return connect(
        HOST, PORT, configuration=configuration(ticket), create_protocol=Client, wait_connected=wait,
        session_ticket_handler=tickets.append,
    )


async def main():
    found = {}
    async with dial() as client:
        found["get"] = await client.get("GET", "/")
        client.request_key_update()
        found["after_key_update"] = await client.get("GET", "/")
        found["post"] = await client.get("POST", "/", b"x" * (3 << 20))
        found["large"] = await client.get("GET", "/large")
        found["request_trailers"] = await client.get("POST", "/", b"abc", [("x-end", "1")])
        stream = client.begin("GET", "/trailers")
        found["response_trailers"] = [await client.end(stream), client.messages[stream].get("trailers")]
        many = [client.begin("GET", "/") for _ in range(100)]
        answers = [await client.end(stream) for stream in many]
        found["concurrent"] = answers.count(found["get"])
        later = 0
        for _ in range(150):
            later += (await client.get("GET", "/")) == found["get"]
        found["one_after_another"] = later
        old = await client.rebind()
        found["after_rebind"] = await client.get("GET", "/")
        found["large_after_rebind"] = await client.get("GET", "/large")
        old.close()
        found["closed"] = client.closed
    async with dial() as client:
        stream = client.begin("GET", "/large")
        await asyncio.wait_for(client.messages[stream]["some"].wait(), 20)
        client._quic.stop_stream(stream, ErrorCode.H3_REQUEST_CANCELLED)
        client.transmit()
        found["after_stop"] = await client.get("GET", "/")
    if tickets:
        async with dial(tickets[-1], wait=False) as client:
            stream = client.begin("GET", "/")
            found["resumed"] = [await client.end(stream), client.early]
    print(json.dumps(found))


asyncio.run(main())
