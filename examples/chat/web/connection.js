// Keeps one WebSocket open: connects, tells what became of it, and comes back after a loss.
//
// A browser hides why a WebSocket handshake failed: a refused token and a gateway that is away look the same. So after
// a failed handshake the same address is asked once over plain HTTP, where the status can be read.

const FIRST_DELAY = 500;
const LONGEST_DELAY = 20_000;
/** A connection that lived this long was a good one: the next loss starts again at the first delay. */
const STEADY = 10_000;
/** A gateway that answers HTTP and still refuses the WebSocket this often will go on refusing it. */
const REFUSALS = 3;

/** What a close code means to a person: whether to come back by itself, or to ask for a new token. */
function explain(code, reason) {
  const because = reason ? ` The gateway says: “${reason}”.` : "";
  switch (code) {
    case 1001:
    case 1012:
      return { again: true, text: "The gateway is restarting." };
    case 1006:
      return { again: true, text: "The connection was lost." };
    case 1011:
      return { again: true, text: `Something failed in the gateway.${because}` };
    case 1013:
      return { again: true, text: `The gateway is busy, or this page read too slowly.${because}` };
    case 1000:
      return { text: `The gateway ended the conversation.${because}` };
    case 1008:
      return { text: `The gateway closed the connection: too many messages, or another rule broken.${because}` };
    case 1009:
      return { text: `The gateway closed the connection because a message was too large.${because}` };
    case 3000:
      return { login: true, text: "Your token has expired. Enter a new one to go on." };
    case 3003:
      return { login: true, text: `You may not be here.${because}` };
    default:
      return { text: `The gateway closed the connection with code ${code}.${because}` };
  }
}

export class Connection {
  #address;
  #hear;
  #change;
  #socket = null;
  #timer = 0;
  #failures = 0;
  #refusals = 0;
  #everOpen = false;
  #openSince = 0;

  /**
   * `hear(message)` gets each JSON message. `change(state)` gets `{ state, text?, login?, retryAt? }`, where `state` is
   * `connecting`, `connected` or `closed`; `login` asks for another token.
   */
  constructor({ address, hear, change }) {
    this.#address = new URL(address, location.href);
    this.#hear = hear;
    this.#change = change;
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  get isWaiting() {
    return this.#timer !== 0;
  }

  open() {
    this.#forget();
    this.#change({ state: "connecting" });

    const url = new URL(this.#address);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.#socket = socket;
    let opened = false;

    socket.onopen = () => {
      if (socket !== this.#socket) return;
      opened = true;
      this.#everOpen = true;
      this.#refusals = 0;
      this.#openSince = Date.now();
      this.#change({ state: "connected" });
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket || typeof data !== "string") return;
      let message;
      try {
        message = JSON.parse(data);
      } catch {
        console.warn("not JSON, left out:", data);
        return;
      }
      this.#hear(message);
    };
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.#socket) return;
      this.#socket = null;
      if (opened) this.#lost(code, reason);
      else this.#failed();
    };
  }

  send(message) {
    if (!this.isOpen) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** For good: nothing is heard of this connection after it. */
  close() {
    const socket = this.#socket;
    this.#forget();
    socket?.close(1000);
  }

  #forget() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const old = this.#socket;
    this.#socket = null;
    // A socket that is still connecting would otherwise live on behind the new one.
    old?.close();
  }

  #lost(code, reason) {
    if (Date.now() - this.#openSince > STEADY) this.#failures = 0;
    const { again, ...what } = explain(code, reason);
    if (again) this.#retry(what.text);
    else this.#change({ state: "closed", ...what });
  }

  async #failed() {
    const attempt = {};
    this.#socket = attempt; // holds the place, so that `close` and `open` end this attempt too
    attempt.close = () => {};

    let status = 0;
    try {
      const signal = AbortSignal.timeout(5000);
      const answer = await fetch(this.#address, { cache: "no-store", redirect: "manual", signal });
      status = answer.status;
    } catch {
      // Nobody answers: status 0.
    }
    if (this.#socket !== attempt) return;
    this.#socket = null;

    if (status === 0) return this.#retry("The gateway does not answer.");
    if (status === 429 || status >= 500) return this.#retry(`The gateway takes no connections now (HTTP ${status}).`);
    const refused = (text) => this.#change({ state: "closed", login: true, text });
    if (status === 401) {
      return refused("The gateway refused the token: it has expired, is incomplete, or was signed otherwise.");
    }
    if (status === 403) return refused("The gateway refused you here (HTTP 403): not this user or not this page.");
    if (status === 404) return refused("The gateway knows no such room (HTTP 404).");
    // Answered, but with nothing that tells why. The handshake may have met a gateway that was just starting.
    this.#refusals += 1;
    if (this.#everOpen && this.#refusals < REFUSALS) return this.#retry("The gateway refused the connection.");
    refused("Could not connect: the gateway is there and refused. The token may have expired.");
  }

  #retry(text) {
    // Half of the delay is left to chance, so that a thousand pages do not come back in the same instant.
    const longest = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#failures);
    const delay = longest / 2 + (Math.random() * longest) / 2;
    this.#failures += 1;
    this.#timer = setTimeout(() => this.open(), delay);
    this.#change({ state: "connecting", text, retryAt: Date.now() + delay });
  }
}
