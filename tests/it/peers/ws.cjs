// npm `ws` as a client of an echo route: node ws.cjs URL OPTIONS, where OPTIONS are those of its `perMessageDeflate`.
// Says in one line of JSON what was agreed on and how many bytes came for how many that were echoed.
const WebSocket = require("ws");

const [url, options] = process.argv.slice(2);
const socket = new WebSocket(url, { perMessageDeflate: JSON.parse(options) });
const sizes = [0, 1, 255, 256, 1000, 5000, 60000];
const json = (size) => JSON.stringify(Array.from({ length: 2000 }, (_, id) => ({ id, kind: "quote" }))).slice(0, size);
const expected = [];
let received = 0;
let echoed = 0;

const fail = (why) => {
  console.error(why);
  process.exit(1);
};

function say(data) {
  expected.push(data);
  socket.send(data);
}

socket.on("open", () => {
  for (let round = 0; round < 3; round += 1) {
    for (const size of sizes) {
      say(json(size));
      say(Buffer.from(json(size)).reverse());
    }
    // In fragments, with a ping between them.
    const text = json(3000);
    expected.push(text);
    socket.send(text.slice(0, 7), { fin: false });
    socket.ping("between");
    socket.send(text.slice(7, 2000), { fin: false });
    socket.send(text.slice(2000), { fin: true });
    say("\u{1f30a}".repeat(500));
  }
});
socket.on("message", (data, isBinary) => {
  const next = expected.shift();
  if (isBinary === (typeof next === "string") || !data.equals(Buffer.from(next))) {
    fail(`message ${received} is not what was sent: ${data.length} bytes`);
  }
  received += 1;
  echoed += data.length;
  if (expected.length === 0) socket.close(1000);
});
socket.on("close", (code, reason) => {
  if (code !== 1000) fail(`closed with ${code} ${reason}`);
  const bytes = socket._socket ? socket._socket.bytesRead : socket._bytes;
  console.log(JSON.stringify({ extensions: socket.extensions, received, echoed, bytes }));
});
socket.on("upgrade", (response) => response.socket.on("close", () => (socket._bytes = response.socket.bytesRead)));
socket.on("error", (error) => fail(`${error}`));
