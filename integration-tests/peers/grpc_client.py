"""Calls of each kind with grpcio: prints what became of them, as JSON.

usage: grpc_client.py HOST:PORT
"""

import json
import queue
import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_retries", 0)])
unary = channel.unary_unary("/test.Echo/Unary")
server_stream = channel.unary_stream("/test.Echo/ServerStream")
client_stream = channel.stream_unary("/test.Echo/ClientStream")
bidi = channel.stream_stream("/test.Echo/Bidi")
hang = channel.unary_unary("/test.Echo/Hang")
was_cancelled = channel.unary_unary("/test.Echo/WasCancelled")
result = {}


def failure(call):
    try:
        call()
        return "no error"
    except grpc.RpcError as error:
        return [error.code().name, error.details()]


reply, call = unary.with_call(b"abc", timeout=20, wait_for_ready=True)
trailing = {name: value.hex() if isinstance(value, bytes) else value for name, value in call.trailing_metadata()}
result["unary"] = [reply.decode(), dict(call.initial_metadata()).get("x-initial"), trailing]
large = bytes(range(256)) * 8192
result["large"] = unary(large, timeout=20) == large[::-1]
result["server_stream"] = b",".join(server_stream(b"100", timeout=20)) == b",".join(b"%d" % n for n in range(100))
result["client_stream"] = client_stream((b"x" * 1000 for _ in range(500)), timeout=20).decode()

# Each message is sent when the answer to the one before it is there.
requests = queue.Queue()
replies = bidi(iter(requests.get, None), timeout=20)
turns = 0
for turn in range(50):
    requests.put(b"%d" % turn)
    turns += next(replies) == b"%d" % turn
requests.put(None)
result["bidi"] = [turns, sum(1 for _ in replies), replies.code().name]

result["trailers_only"] = failure(
    lambda: channel.unary_unary("/test.Echo/Fail")(b"", timeout=20)
)
result["unimplemented"] = failure(lambda: channel.unary_unary("/test.Echo/Nothing")(b"", timeout=20))[0]
result["deadline"] = failure(lambda: hang(b"", timeout=0.3))[0]
result["deadline_upstream"] = was_cancelled(b"", timeout=20).decode()
future = hang.future(b"", timeout=20)
unary(b"", timeout=20)
future.cancel()
result["cancelled"] = failure(future.result) if not future.cancelled() else "CANCELLED"
result["cancelled_upstream"] = was_cancelled(b"", timeout=20).decode()
calls = [unary.future(b"%d" % number, timeout=20) for number in range(200)]
result["concurrent"] = sum(call.result() == (b"%d" % number)[::-1] for number, call in enumerate(calls))
print(json.dumps(result))
