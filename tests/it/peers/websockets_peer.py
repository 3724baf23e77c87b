"""PyPI `websockets`, whose compression is CPython's zlib, as a client of an echo route.

python3 websockets_peer.py URL OPTIONS, where OPTIONS are those of ClientPerMessageDeflateFactory. Says in one line of JSON
what was agreed on, and how many messages came back.
"""

import json
import random
import sys

from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

url, options = sys.argv[1], json.loads(sys.argv[2])
factory = ClientPerMessageDeflateFactory(**options)
noise = random.Random(1)
received = 0

with connect(url, compression=None, extensions=[factory], max_size=None) as socket:
    for number in range(40):
        size = noise.choice([0, 1, 20, 255, 256, 700, 4000, 60_000])
        text = json.dumps([{"id": id, "kind": "quote", "bid": noise.random()} for id in range(size // 30 + 1)])[:size]
        for message in (text, text.encode()[::-1], noise.randbytes(size // 2)):
            socket.send(message)
            assert socket.recv(timeout=20) == message, f"message {received} of {len(message)} bytes"
            received += 1
        # In fragments.
        socket.send([text, "\u2603", text[:10]])
        assert socket.recv(timeout=20) == text + "\u2603" + text[:10]
        received += 1
    agreed = socket.response.headers.get("Sec-WebSocket-Extensions", "")
    print(json.dumps({"extensions": agreed, "received": received}))
