// Takes the gateway's calls apart and puts the plugin's answers together. Called by what transform.mjs adds.
import { at, takeMessage, takeString, utf8 } from "./abi";
import { Publication } from "./publication";
import { Session } from "./session";
import { Closer, Decision, Message, Position, Verdict } from "./types";

// What the gateway reads after a hook has returned: a result of up to 20 bytes, and what it points to, which lives
// until the next answer.
const ANSWER: usize = memory.data(24, 4);
let answered: ArrayBuffer | null = null;

/** What happened to a subscription. */
export enum SubscriptionEvent {
  Subscribed,
  Recovered,
  Gap,
  Added,
  Removed,
}

export enum PresenceEvent {
  Joined,
  Left,
}

/** Why a request to an upstream has no answer. */
export enum Failure {
  None = -1,
  Unavailable = 0,
  Timeout = 1,
  TooLarge = 2,
  Broken = 3,
}

/** An upstream's answer. */
export class Reply {
  constructor(
    readonly failure: Failure,
    readonly status: u16,
    readonly body: Message,
  ) {}
}

/** Who came to a topic, or left it. */
export class PresenceChange {
  constructor(
    readonly topic: string,
    readonly event: PresenceEvent,
    readonly sessionId: string,
    readonly user: string | null,
    readonly info: string,
    /** How many of the user's sessions are on the topic now. */
    readonly sessionsOfUser: u32,
  ) {}
}

export function init(hook: () => string | null): usize {
  return outcome(hook());
}

export function authenticate(hook: (session: Session) => Decision, session: u64): usize {
  const decision = hook(new Session(session));
  const error = decision.error;
  if (error !== null) return failed(error);
  store<u8>(ANSWER, 0);
  store<u8>(ANSWER, <u8>decision.tag, 4);
  if (decision.tag == 0) store<u16>(ANSWER, decision.status, 8);
  if (decision.tag == 2) {
    const user = decision.user;
    store<u8>(ANSWER, user === null ? 0 : 1, 8);
    if (user !== null) bytes(utf8(user), 12);
  }
  return ANSWER;
}

export function opened(hook: (session: Session) => string | null, session: u64): usize {
  return outcome(hook(new Session(session)));
}

export function no_opened(session: Session): string | null {
  return null;
}

export function closed(
  hook: (session: Session, code: u16, reason: string, by: Closer) => string | null,
  session: u64, code: i32, reason: usize, reasonLength: usize, by: i32,
): usize {
  return outcome(hook(new Session(session), <u16>code, takeString(reason, reasonLength), <Closer>by));
}

export function no_closed(session: Session, code: u16, reason: string, by: Closer): string | null {
  return null;
}

export function inbound(
  hook: (session: Session, message: Message) => Verdict,
  session: u64, kind: i32, data: usize, length: usize,
): usize {
  return verdict(hook(new Session(session), takeMessage(kind, data, length)));
}

export function publication(
  hook: (publication: Publication, topic: string, message: Message) => Verdict,
  publication: u64, topic: usize, topicLength: usize, kind: i32, data: usize, length: usize,
): usize {
  const name = takeString(topic, topicLength);
  return verdict(hook(new Publication(publication), name, takeMessage(kind, data, length)));
}

export function broadcast(
  hook: (publication: Publication, topic: string, message: Message) => Verdict,
  publication: u64, topic: usize, topicLength: usize, kind: i32, data: usize, length: usize,
): usize {
  const name = takeString(topic, topicLength);
  return verdict(hook(new Publication(publication), name, takeMessage(kind, data, length)));
}

export function outbound(
  hook: (session: Session, publication: Publication | null, message: Message) => Verdict,
  session: u64, published: i32, publication: u64, kind: i32, data: usize, length: usize,
): usize {
  const handle = published ? new Publication(publication) : null;
  return verdict(hook(new Session(session), handle, takeMessage(kind, data, length)));
}

export function subscription(
  hook: (session: Session, topic: string, event: SubscriptionEvent, position: Position | null) => string | null,
  session: u64, topic: usize, topicLength: usize, event: i32, positioned: i32, epoch: u64, offset: u64,
): usize {
  const name = takeString(topic, topicLength), position = positioned ? new Position(epoch, offset) : null;
  return outcome(hook(new Session(session), name, <SubscriptionEvent>event, position));
}

export function timer(
  hook: (session: Session, name: string) => string | null,
  session: u64, name: usize, nameLength: usize,
): usize {
  return outcome(hook(new Session(session), takeString(name, nameLength)));
}

export function reply(
  hook: (session: Session, tag: string, reply: Reply) => string | null,
  session: u64, tag: usize, tagLength: usize, failed: i32, status: i32, kind: i32, data: usize, length: usize,
): usize {
  const name = takeString(tag, tagLength);
  const answer = failed
    ? new Reply(<Failure>status, 0, Message.text(""))
    : new Reply(Failure.None, <u16>status, takeMessage(kind, data, length));
  return outcome(hook(new Session(session), name, answer));
}

export function presence(
  hook: (change: PresenceChange) => string | null,
  topic: usize, topicLength: usize, event: i32, id: usize, idLength: usize, known: i32, user: usize,
  userLength: usize, info: usize, infoLength: usize, sessions: u32,
): usize {
  const name = takeString(topic, topicLength), who = takeString(id, idLength);
  const account = known ? takeString(user, userLength) : null, about = takeString(info, infoLength);
  return outcome(hook(new PresenceChange(name, <PresenceEvent>event, who, account, about, sessions)));
}

function bytes(what: ArrayBuffer, offset: usize): void {
  answered = what;
  store<u32>(ANSWER + offset, <u32>at(what));
  store<u32>(ANSWER + offset, what.byteLength, 4);
}

function failed(error: string): usize {
  store<u8>(ANSWER, 1);
  bytes(utf8(error), 4);
  return ANSWER;
}

/** `result<_, string>` */
function outcome(error: string | null): usize {
  if (error !== null) return failed(error);
  store<u8>(ANSWER, 0);
  return ANSWER;
}

/** `result<verdict, string>` */
function verdict(verdict: Verdict): usize {
  const error = verdict.error;
  if (error !== null) return failed(error);
  store<u8>(ANSWER, 0);
  store<u8>(ANSWER, <u8>verdict.tag, 4);
  const message = verdict.message;
  if (message !== null) {
    store<u8>(ANSWER, <u8>message.kind, 8);
    bytes(message.bytes, 12);
  }
  return ANSWER;
}
