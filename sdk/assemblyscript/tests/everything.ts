// All hooks of the interface, and the functions that the tour has no use for. Tests load it; see also the SDKs of the
// other languages, which answer the same.
import {
  Decision, Message, Position, Publication, Refusal, Session, Verdict, clock, config, history, hooks, kv,
  metrics, presence as members, random, topics, upstream,
} from "tidegate";

const TOPIC = "every:1";

export function init(): string | null {
  return null;
}

export function authenticate(session: Session): Decision {
  const offered = session.subprotocols;
  if (offered.length && session.selectSubprotocol(offered[0]) != Refusal.None) {
    return Decision.fail("the subprotocol was refused");
  }
  return Decision.admit("ann");
}

export function opened(session: Session): string | null {
  return session.subscribe(TOPIC).withPresence("here") == Refusal.None ? null : "subscribe";
}

function tell(session: Session, what: string, is: string): void {
  session.sendText(`${what} = ${is}`);
}

function yes(is: bool): string {
  return is ? "yes" : "no";
}

function or(text: string | null): string {
  return text === null ? "none" : text;
}

function store(session: Session): void {
  const v = String.UTF8.encode("v"), w = String.UTF8.encode("w");
  tell(session, "missing", or(kv.get("key").text));
  kv.set("key", v, 0);
  tell(session, "set", or(kv.get("key").text));
  kv.increment("number", 2, 0);
  tell(session, "increment", kv.increment("number", 40, 0).value.toString());
  tell(session, "increment of a text", yes(kv.increment("key", 1, 0).refusal == Refusal.None));
  tell(session, "exchange of a missing", yes(kv.compareAndSet("key", null, w, 0).done));
  tell(session, "exchange", yes(kv.compareAndSet("key", v, w, 0).done));
  tell(session, "exchanged", or(kv.get("key").text));
  kv.remove("key");
  kv.remove("number");
  tell(session, "deleted", or(kv.get("key").text));
}

function topic(session: Session): void {
  const page = history.read(TOPIC, null, 10);
  const kept = new Array<string>(0);
  for (let i = 0; i < page.publications.length; i++) kept.push(page.publications[i].content.text);
  tell(session, "history", kept.join(" "));
  tell(session, "offset", page.position.offset.toString());
  tell(session, "complete", yes(page.complete));
  const rest = history.read(TOPIC, new Position(page.position.epoch, 1), 10);
  tell(session, "after the first", rest.publications.length.toString());
  tell(session, "still complete", yes(rest.complete));
  const counts = members.count(TOPIC);
  tell(session, "sessions", counts.sessions.toString());
  tell(session, "users", counts.users.toString());
  const member = members.members(TOPIC, 10).members[0];
  tell(session, "member", or(member.user) + " " + member.info);
  tell(session, "is there", yes(members.hasUser(TOPIC, "ann").found));
}

function request(session: Session): void {
  tell(session, "method", session.method);
  tell(session, "path", session.path);
  tell(session, "parameter", or(session.parameter("room")));
  tell(session, "query", session.rawQuery);
  tell(session, "header", or(session.header("X-Every")));
  const headers = session.headers;
  let found = "none";
  for (let i = 0; i < headers.length; i++) if (headers[i].name == "x-every") found = headers[i].value;
  tell(session, "of all headers", found);
  tell(session, "cookie", or(session.cookie("c")));
  tell(session, "route", session.route);
  tell(session, "transport", session.transport);
  tell(session, "subprotocol", or(session.subprotocol));
  tell(session, "random", random.bytes(5).byteLength.toString());
  tell(session, "time", yes(clock.now() > 1600000000000 && clock.monotonic() > 0));
  tell(session, "config", config.json());
  metrics.count('every_total{language="assemblyscript"}', 2);
  metrics.gauge("every_gauge", 0.5);
  metrics.observe("every_seconds", 0.5);
  tell(session, "forwarded", yes(!upstream.forward(session, "nowhere", Message.text("hello")).refused));
}

export function inbound(session: Session, message: Message): Verdict {
  if (!message.isText) session.send(message);
  else if (message.text == "store") store(session);
  else if (message.text == "topic") topic(session);
  else if (message.text == "request") request(session);
  else topics.publish(TOPIC, message).idempotencyKey(message.text);
  return Verdict.stop();
}

export function publication(publication: Publication, topic: string, message: Message): Verdict {
  return Verdict.replace(Message.text(message.text + "!"));
}

export function broadcast(publication: Publication, topic: string, message: Message): Verdict {
  return Verdict.next();
}

export function outbound(session: Session, publication: Publication | null, message: Message): Verdict {
  return Verdict.next();
}

export function subscription(
  session: Session, topic: string, event: hooks.SubscriptionEvent, position: Position | null,
): string | null {
  return null;
}

export function timer(session: Session, name: string): string | null {
  return null;
}

export function reply(session: Session, tag: string, reply: hooks.Reply): string | null {
  return null;
}

export function presence(change: hooks.PresenceChange): string | null {
  return null;
}
