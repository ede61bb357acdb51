"""An HTTP/2 upstream of python-h2: prints its port, then serves until it is killed.

Answers each request with its body, and a trailer with how long that was. /refuse refuses its stream the first time,
/goaway says GOAWAY after the answer, /reset resets.
"""

import socket
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events

refused = set()


class Connection:
    def __init__(self, sock):
        self.sock = sock
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.conn = h2.connection.H2Connection(config=config)
        self.paths, self.bodies, self.waiting = {}, {}, {}

    def run(self):
        self.conn.initiate_connection()
        self.flush()
        while data := self.sock.recv(65536):
            for event in self.conn.receive_data(data):
                self.handle(event)
            for stream in list(self.waiting):
                self.send(stream)
            self.flush()
        self.sock.close()

    def flush(self):
        self.sock.sendall(self.conn.data_to_send())

    def handle(self, event):
        if isinstance(event, h2.events.RequestReceived):
            self.paths[event.stream_id] = dict(event.headers)[":path"]
            self.bodies[event.stream_id] = bytearray()
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.answer(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.waiting.pop(event.stream_id, None)

    def answer(self, stream):
        path, body = self.paths.pop(stream), self.bodies.pop(stream)
        if path.startswith("/refuse") and path not in refused:
            refused.add(path)
            return self.conn.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        if path == "/reset":
            return self.conn.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        self.conn.send_headers(stream, [(":status", "200"), ("server", "python-h2")])
        self.waiting[stream] = (bytes(body), [("x-length", str(len(body)))])
        self.send(stream)
        if path == "/goaway":
            self.conn.close_connection(last_stream_id=stream)

    def send(self, stream):
        body, trailers = self.waiting.pop(stream)
        while body:
            room = min(self.conn.local_flow_control_window(stream), self.conn.max_outbound_frame_size)
            if room <= 0:
                self.waiting[stream] = (body, trailers)
                return
            self.conn.send_data(stream, body[:room])
            body = body[room:]
        self.conn.send_headers(stream, trailers, end_stream=True)


def serve(sock):
    try:
        Connection(sock).run()
    except OSError:
        pass


listener = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listener.getsockname()[1], flush=True)
while True:
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(accepted,), daemon=True).start()
