"""A client of python-h2, which checks every frame it gets: prints what became of its requests, as JSON.

usage: h2_client.py HOST PORT
"""

import json
import socket
import sys

import h2.config
import h2.connection
import h2.events

sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
conn = h2.connection.H2Connection(config=h2.config.H2Configuration(header_encoding="utf-8"))
conn.initiate_connection()
messages, open_streams, unsent = {}, set(), {}


def begin(method, path, body=b"", trailers=()):
    stream = conn.get_next_available_stream_id()
    head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a.test")]
    conn.send_headers(stream, head, end_stream=not body)
    messages[stream] = {"status": 0, "body": b"", "trailers": {}, "reset": None}
    open_streams.add(stream)
    if body:
        unsent[stream] = (body, list(trailers))
    return stream


def send():
    for stream, (body, trailers) in list(unsent.items()):
        while body and (room := min(conn.local_flow_control_window(stream), conn.max_outbound_frame_size)) > 0:
            conn.send_data(stream, body[:room], end_stream=len(body) <= room and not trailers)
            body = body[room:]
        unsent[stream] = (body, trailers)
        if not body:
            del unsent[stream]
            if trailers:
                conn.send_headers(stream, trailers, end_stream=True)
    sock.sendall(conn.data_to_send())


def handle(event):
    if isinstance(event, h2.events.ResponseReceived):
        messages[event.stream_id]["status"] = int(dict(event.headers)[":status"])
    elif isinstance(event, h2.events.DataReceived):
        messages[event.stream_id]["body"] += event.data
        conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
    elif isinstance(event, h2.events.TrailersReceived):
        messages[event.stream_id]["trailers"] = dict(event.headers)
    elif isinstance(event, h2.events.StreamReset):
        messages[event.stream_id]["reset"] = int(event.error_code)
        open_streams.discard(event.stream_id)
        unsent.pop(event.stream_id, None)
    elif isinstance(event, h2.events.StreamEnded):
        open_streams.discard(event.stream_id)


def finish():
    send()
    while open_streams:
        data = sock.recv(65536)
        if not data:
            raise SystemExit(f"the connection ended with {sorted(open_streams)} open")
        for event in conn.receive_data(data):
            handle(event)
        send()


def told(stream):
    message = messages[stream]
    return {
        "status": message["status"],
        "length": len(message["body"]),
        "intact": message["body"] == bodies.get(stream, b""),
        "trailers": message["trailers"],
        "reset": message["reset"],
    }


bodies = {}


def post(path, body, trailers=()):
    stream = begin("POST", path, body, trailers)
    bodies[stream] = body
    return stream


plain = begin("GET", "/plain")
finish()
large = post("/large", bytes(range(256)) * 8192)
trailed = post("/trailers", b"small", [("x-request-trailer", "yes")])
many = [post(f"/many/{number}", b"%d" % number * 100) for number in range(50)]
refused = begin("GET", "/refuse")
finish()
reset = begin("GET", "/reset")
finish()
last = begin("GET", "/goaway")
finish()
after = begin("GET", "/after")
finish()
names = {"plain": plain, "large": large, "trailed": trailed, "refused": refused, "reset": reset, "last": last}
result = {name: told(stream) for name, stream in names.items()}
result["after"] = told(after)
result["many"] = sum(told(stream)["status"] == 200 and told(stream)["intact"] for stream in many)
print(json.dumps(result))
