// The hooks of the interface, and the functions that the tour has no use for. Tests load it; see also the SDKs of the
// other languages, which answer the same.
import * as clock from "tidegate:plugin/clock@0.1.0";
import * as config from "tidegate:plugin/config@0.1.0";
import * as handshake from "tidegate:plugin/handshake@0.1.0";
import * as history from "tidegate:plugin/history@0.1.0";
import * as kv from "tidegate:plugin/kv@0.1.0";
import * as metrics from "tidegate:plugin/metrics@0.1.0";
import * as presence from "tidegate:plugin/presence@0.1.0";
import * as publication from "tidegate:plugin/publication@0.1.0";
import * as random from "tidegate:plugin/random@0.1.0";
import * as session from "tidegate:plugin/session@0.1.0";
import * as topics from "tidegate:plugin/topics@0.1.0";
import * as upstream from "tidegate:plugin/upstream@0.1.0";
import { admit, next, refusal, replace, stop, text, utf8 } from "../tidegate.js";

const TOPIC = "every:1";

const tell = (s, what, is) => session.send(s, text(`${what} = ${is}`));
const yes = (is) => (is ? "yes" : "no");
const decode = (bytes) => (bytes == null ? "none" : String.fromCharCode(...bytes));

function store(s) {
  const [v, w] = [utf8("v"), utf8("w")];
  tell(s, "missing", decode(kv.get("key")));
  kv.set("key", v, 0);
  tell(s, "set", decode(kv.get("key")));
  kv.increment("number", 2, 0);
  tell(s, "increment", kv.increment("number", 40, 0));
  let counted = true;
  try {
    kv.increment("key", 1, 0);
  } catch (error) {
    counted = refusal(error) !== "invalid";
  }
  tell(s, "increment of a text", yes(counted));
  tell(s, "exchange of a missing", yes(kv.compareAndSet("key", null, w, 0)));
  tell(s, "exchange", yes(kv.compareAndSet("key", v, w, 0)));
  tell(s, "exchanged", decode(kv.get("key")));
  kv.delete("key");
  kv.delete("number");
  tell(s, "deleted", decode(kv.get("key")));
}

function topic(s) {
  const page = history.read(TOPIC, null, 10);
  tell(s, "history", page.publications.map((handle) => publication.content(handle).val).join(" "));
  tell(s, "offset", page.position.offset);
  tell(s, "complete", yes(page.complete));
  const rest = history.read(TOPIC, { epoch: page.position.epoch, offset: 1 }, 10);
  tell(s, "after the first", rest.publications.length);
  tell(s, "still complete", yes(rest.complete));
  const counts = presence.count(TOPIC);
  tell(s, "sessions", counts.sessions);
  tell(s, "users", counts.users);
  const [member] = presence.members(TOPIC, 10);
  tell(s, "member", `${member.user} ${member.info}`);
  tell(s, "is there", yes(presence.hasUser(TOPIC, "ann")));
}

function request(s) {
  tell(s, "method", handshake.method(s));
  tell(s, "path", handshake.path(s));
  tell(s, "parameter", handshake.parameter(s, "room") ?? "none");
  tell(s, "query", handshake.rawQuery(s));
  tell(s, "header", handshake.header(s, "X-Every") ?? "none");
  tell(s, "of all headers", Object.fromEntries(handshake.headers(s))["x-every"] ?? "none");
  tell(s, "cookie", handshake.cookie(s, "c") ?? "none");
  tell(s, "route", session.route(s));
  tell(s, "transport", session.transport(s));
  tell(s, "subprotocol", session.subprotocol(s) ?? "none");
  tell(s, "random", random.bytes(5).length);
  tell(s, "time", yes(clock.now() > 1600000000000 && clock.monotonic() > 0));
  tell(s, "config", config.json());
  metrics.count('every_total{language="javascript"}', 2);
  metrics.gauge("every_gauge", 0.5);
  metrics.observe("every_seconds", 0.5);
  let forwarded = true;
  try {
    upstream.forward(s, "nowhere", text("hello"));
  } catch (error) {
    forwarded = !["denied", "unsupported"].includes(refusal(error));
  }
  tell(s, "forwarded", yes(forwarded));
}

export const onInit = { handle() {} };

export const onAuthenticate = {
  handle(s) {
    const [offered] = handshake.subprotocols(s);
    if (offered) handshake.selectSubprotocol(s, offered);
    return admit("ann");
  },
};

export const onSession = {
  opened(s) {
    session.withPresence(session.subscribe(s, TOPIC), "here");
  },
  closed(s, code, reason, by) {},
};

export const onInbound = {
  handle(s, message) {
    if (message.tag === "binary") session.send(s, message);
    else if (message.val === "store") store(s);
    else if (message.val === "topic") topic(s);
    else if (message.val === "request") request(s);
    else topics.withIdempotencyKey(topics.publish(TOPIC, message), message.val);
    return stop;
  },
};

export const onPublication = {
  handle(handle, name, message) {
    return replace(text(`${message.val}!`));
  },
};

export const onBroadcast = { handle: () => next };
export const onOutbound = { handle: () => next };
export const onSubscription = { handle() {} };
export const onTimer = { handle() {} };
export const onReply = { handle() {} };
export const onPresence = { handle() {} };
