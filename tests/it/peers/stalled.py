"""Subscribers who do not read: HOST PORT PATH COUNT. Says `ready` when all of them are in; for a line on its input, it reads
what each was sent and prints how many ended with which close code, as JSON.

Their segments are small, so that the kernel keeps little for each of them: a thousand would else take gigabytes."""

import collections
import json
import socket
import sys

host, port, path, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
request = (
    f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()


def connect():
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    client.connect((host, port))
    client.sendall(request)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return client


def close_code(client):
    """Reads to the close frame, or to the end."""
    client.settimeout(20)
    stream = client.makefile("rb")
    while True:
        head = stream.read(2)
        if len(head) < 2:
            return "none"
        length = head[1]
        if length == 126:
            length = int.from_bytes(stream.read(2), "big")
        elif length == 127:
            length = int.from_bytes(stream.read(8), "big")
        payload = stream.read(length)
        if head[0] == 0x88:
            return str(int.from_bytes(payload[:2], "big"))


clients = [connect() for _ in range(count)]
print("ready", flush=True)
sys.stdin.readline()
codes = collections.Counter(close_code(client) for client in clients)
print(json.dumps(codes), flush=True)
