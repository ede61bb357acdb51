"""An HTTP/3 upstream of aioquic: prints its port, then serves until it is killed.

usage: h3_server.py CERTIFICATE KEY [MAX_STREAMS]

/large: 3 MB. /trailers: with trailers. /reset: reset in the middle. /refuse: H3_REQUEST_REJECTED. /goaway: announces
the close with the answer. Anything else: the method and the length of the body.
"""

import asyncio
import sys

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection, encode_frame
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

GOAWAY = 7
connections = 0


class Server(QuicConnectionProtocol):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        global connections
        connections += 1
        self.number = connections
        self.http = H3Connection(self._quic)
        self.requests = {}

    def quic_event_received(self, event):
        for found in self.http.handle_event(event):
            if isinstance(found, HeadersReceived):
                request = self.requests.setdefault(found.stream_id, {"length": 0, "trailers": None, "head": None})
                fields = {name.decode(): value.decode() for name, value in found.headers}
                request["trailers" if request["head"] else "head"] = fields
            elif isinstance(found, DataReceived):
                self.requests[found.stream_id]["length"] += len(found.data)
            if getattr(found, "stream_ended", False):
                self.answer(found.stream_id, self.requests.pop(found.stream_id))

    def answer(self, stream, request):
        path, method = request["head"][":path"], request["head"][":method"]
        http = self.http
        head = [(b":status", b"200"), (b"server", b"aioquic"), (b"x-connection", str(self.number).encode())]
        if path == "/refuse":
            self._quic.reset_stream(stream, ErrorCode.H3_REQUEST_REJECTED)
        elif path == "/reset":
            http.send_headers(stream, head + [(b"content-length", b"1000")])
            http.send_data(stream, b"some", end_stream=False)
            asyncio.get_running_loop().call_later(0.05, self.reset, stream)
        elif path == "/large":
            http.send_headers(stream, head)
            http.send_data(stream, b"l" * (3 << 20), end_stream=True)
        elif path == "/trailers":
            http.send_headers(stream, head)
            http.send_data(stream, b"body", end_stream=False)
            http.send_headers(stream, [(b"x-end", b"1")], end_stream=True)
        else:
            if path == "/goaway":
                control = encode_frame(GOAWAY, encode_uint_var(stream + 4))
                self._quic.send_stream_data(http._local_control_stream_id, control)
            text = f"{method} {request['length']}"
            if request["trailers"]:
                text += f" {request['trailers']}"
            http.send_headers(stream, head + [(b"content-length", str(len(text)).encode())])
            http.send_data(stream, b"" if method == "HEAD" else text.encode(), end_stream=True)
        self.transmit()

    def reset(self, stream):
        self._quic.reset_stream(stream, ErrorCode.H3_INTERNAL_ERROR)
        self.transmit()


async def main():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(sys.argv[1], sys.argv[2])
    configuration.max_data, configuration.max_stream_data = 4 << 20, 2 << 20
    server = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=Server)
    print(server._transport.get_extra_info("sockname")[1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
