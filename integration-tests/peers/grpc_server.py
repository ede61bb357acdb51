"""A gRPC server of grpcio, without generated code: messages are bytes. Prints its port, serves until it is killed."""

import threading
import time
from concurrent import futures

import grpc

cancelled = threading.Event()


def unary(request, context):
    context.send_initial_metadata((("x-initial", "i"),))
    context.set_trailing_metadata((("x-trailing", "t"), ("x-bin-bin", b"\x00\xff")))
    return request[::-1]


def server_stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def client_stream(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def bidi(requests, context):
    for request in requests:
        yield request


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: \u00fc")


def hang(request, context):
    context.add_callback(cancelled.set)
    while context.is_active():
        time.sleep(0.01)
    return b""


def was_cancelled(request, context):
    found = cancelled.wait(10)
    cancelled.clear()
    return b"yes" if found else b"no"


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Hang": grpc.unary_unary_rpc_method_handler(hang),
    "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
}
server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
server.wait_for_termination()
