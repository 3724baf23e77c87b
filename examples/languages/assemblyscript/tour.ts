// A tour of the plugin interface, in AssemblyScript. The folders beside this one have the same plugin in other
// languages.
import { Closer, Decision, Field, Message, Refusal, Session, Verdict, config, log, topics } from "tidegate";

let greeting = "welcome";
/** The longest message, in bytes. */
let longest: u64 = 200;

export function init(): string | null {
  const text = config.get("greeting");
  if (text !== null) greeting = text;
  const number = config.get("longest");
  if (number !== null) {
    if (!isNumber(number)) return `longest = \`${number}\`: not a number of bytes`;
    longest = U64.parseInt(number);
  }
  log.info("ready");
  return null;
}

export function authenticate(session: Session): Decision {
  const name = session.query("name");
  if (name === null) {
    session.setBody("text/plain", "who are you? add ?name=YOU to the address\n");
    return Decision.refuse(401);
  }
  if (!isName(name)) {
    session.setBody("text/plain", "a name is 1 to 32 letters, digits, - and _\n");
    return Decision.refuse(403);
  }
  if (session.addHeader("x-tour-name", name) != Refusal.None) return Decision.fail("the header was refused");
  return Decision.admit(name);
}

export function opened(session: Session): string | null {
  const name = userOf(session);
  log.info("came", [new Field("name", name)]);
  session.sendText(`${greeting}, ${name}`);
  return null;
}

export function closed(session: Session, code: u16, reason: string, by: Closer): string | null {
  log.info("went", [new Field("code", code.toString())]);
  return null;
}

export function inbound(session: Session, message: Message): Verdict {
  if (!message.isText) {
    session.close(1003, "text only");
    return Verdict.stop();
  }
  if (message.length > i32(longest)) {
    session.sendText(`at most ${longest} bytes`);
    return Verdict.stop();
  }
  const words = new Split(message.text), command = words.first, rest = words.rest;
  let error: string | null = null;
  if (command == "echo") session.sendText(rest);
  else if (command == "join") error = join(session, rest);
  else if (command == "leave") leave(session, rest);
  else if (command == "say") error = say(session, rest);
  else if (command == "topics") session.sendText("topics: " + session.topics.join(", "));
  else if (command == "count") error = count(session);
  else if (command == "remind") error = remind(session, rest);
  else if (command == "fail") {
    session.sendText("never sent");
    error = "asked to fail";
  } else if (command == "crash") {
    session.sendText("never sent");
    throw new Error("asked to crash");
  } else session.sendText(`there is no \`${command}\`; try: echo join leave say topics count remind`);
  return error === null ? Verdict.stop() : Verdict.fail(error);
}

export function timer(session: Session, name: string): string | null {
  const text = session.attribute(name);
  if (session.setAttribute(name, null) != Refusal.None) return "the attribute was refused";
  session.sendText("remember: " + (text === null ? "" : text));
  return null;
}

/** `join TOPIC`: subscribe, seen by the others. The answer comes before the first delivery. */
function join(session: Session, topic: string): string | null {
  const subscribed = session.subscribe(topic);
  if (subscribed.refusal == Refusal.Denied) session.sendText(`may not join ${topic}`);
  else if (subscribed.refused) session.sendText(`cannot join ${topic}`);
  else if (subscribed.withPresence("on tour") != Refusal.None) return "the presence was refused";
  else session.sendText(`joined ${topic}`);
  return null;
}

/** `leave TOPIC` */
function leave(session: Session, topic: string): void {
  if (session.isSubscribed(topic)) {
    session.unsubscribe(topic);
    session.sendText(`left ${topic}`);
  } else {
    session.sendText(`not on ${topic}`);
  }
}

/**
 * `say TOPIC TEXT`: publish to everyone else. The answer tells the truth: if the publication is refused later, the
 * client gets the other one.
 */
function say(session: Session, rest: string): string | null {
  const words = new Split(rest), topic = words.first, name = userOf(session);
  const published = topics.publish(topic, Message.text(`${name}: ${words.rest}`));
  if (published.refused) {
    session.sendText((published.refusal == Refusal.Denied ? "may not say to " : "cannot say to ") + topic);
    return null;
  }
  published.exclude(session);
  if (published.metadata("from", name) != Refusal.None) return "the metadata were refused";
  session.sendIfRefused(Message.text("not said, try again"));
  session.sendText("said");
  return null;
}

/** `count`: an attribute remembers something for one session; the plugin's memory would not. */
function count(session: Session): string | null {
  const before = session.attribute("count");
  const now = ((before === null ? 0 : U32.parseInt(before)) + 1).toString();
  if (session.setAttribute("count", now) != Refusal.None) return "the attribute was refused";
  session.sendText(now);
  return null;
}

/** `remind MILLISECONDS TEXT` */
function remind(session: Session, rest: string): string | null {
  const words = new Split(rest), after = words.first;
  if (!isNumber(after)) {
    session.sendText("remind MILLISECONDS TEXT");
    return null;
  }
  if (
    session.setAttribute("reminder", words.rest) != Refusal.None ||
    session.setTimer("reminder", U64.parseInt(after)) != Refusal.None
  ) return "the reminder was refused";
  session.sendText("will remind");
  return null;
}

/** The first word, and what comes after the space. */
class Split {
  first: string;
  rest: string;

  constructor(text: string) {
    const space = text.indexOf(" ");
    this.first = space < 0 ? text : text.substring(0, space);
    this.rest = space < 0 ? "" : text.substring(space + 1);
  }
}

function userOf(session: Session): string {
  const user = session.user;
  return user === null ? "" : user;
}

function isName(name: string): bool {
  for (let i = 0; i < name.length; i++) {
    const c = name.charCodeAt(i), lower = c | 0x20;
    if (!((lower >= 97 && lower <= 122) || (c >= 48 && c <= 57) || c == 45 || c == 95)) return false;
  }
  return name.length >= 1 && name.length <= 32;
}

/** Digits of a number up to 2³² − 1. */
function isNumber(text: string): bool {
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c < 48 || c > 57) return false;
  }
  return text.length >= 1 && text.length <= 10 && U64.parseInt(text) <= u64(u32.MAX_VALUE);
}
