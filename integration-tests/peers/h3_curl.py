"""A client of curl_cffi (curl's own HTTP/3): prints what became of its requests, as JSON.

usage: h3_curl.py PORT CA
"""

import json
import sys

from curl_cffi import Curl, CurlHttpVersion, CurlInfo, CurlOpt

PORT, CA = sys.argv[1], sys.argv[2]
curl = Curl()


def ask(path, body=None):
    "On one handle, so that its connection is used again."
    taken = bytearray()
    curl.reset()
    curl.setopt(CurlOpt.URL, f"https://server.test:{PORT}{path}".encode())
    curl.setopt(CurlOpt.RESOLVE, [f"server.test:{PORT}:127.0.0.1".encode()])
    curl.setopt(CurlOpt.CAINFO, CA.encode())
    curl.setopt(CurlOpt.HTTP_VERSION, CurlHttpVersion.V3ONLY)
    curl.setopt(CurlOpt.TIMEOUT_MS, 20000)
    curl.setopt(CurlOpt.WRITEFUNCTION, taken.extend)
    if body is not None:
        curl.setopt(CurlOpt.POST, 1)
        curl.setopt(CurlOpt.POSTFIELDS, body)
        curl.setopt(CurlOpt.POSTFIELDSIZE, len(body))
    curl.perform()
    text = taken.decode() if len(taken) < 1000 else len(taken)
    return [curl.getinfo(CurlInfo.RESPONSE_CODE), curl.getinfo(CurlInfo.HTTP_VERSION), text]


print(json.dumps({"get": ask("/"), "post": ask("/", b"x" * 1000), "large": ask("/large"), "again": ask("/")}))
