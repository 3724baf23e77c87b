// The gateway's backends, by their configured names; only in hooks of a session.
import { RESULT, accepted, at, refusal, utf8 } from "./abi";
import * as raw from "./raw/upstream";
import { Session } from "./session";
import { Accepted, Message, Refusal } from "./types";

/** Effect: hand the message over; nobody waits for an answer. */
export function forward(session: Session, upstream: string, message: Message): Forwarded {
  const name = utf8(upstream);
  raw.forward(session.handle, at(name), name.byteLength, message.kind, at(message.bytes), message.length, RESULT);
  const answer = accepted();
  return new Forwarded(answer.refusal, answer.effect);
}

/** Effect: as `forward`, and the answer comes to the hook `reply` with the same tag. */
export function request(session: Session, upstream: string, tag: string, message: Message): Forwarded {
  const name = utf8(upstream), mark = utf8(tag);
  raw.request(session.handle, at(name), name.byteLength, at(mark), mark.byteLength, message.kind, at(message.bytes),
    message.length, RESULT);
  const answer = accepted();
  return new Forwarded(answer.refusal, answer.effect);
}

/** What was handed over, for its options. */
export class Forwarded extends Accepted {
  header(name: string, value: string): Refusal {
    if (this.refused) return this.refusal;
    const key = utf8(name), bytes = utf8(value);
    raw.withHeader(this.effect, at(key), key.byteLength, at(bytes), bytes.byteLength, RESULT);
    return refusal();
  }

  /** Of a `request`: milliseconds, up to the upstream's own limit. */
  timeout(after: u64): void {
    if (!this.refused) raw.withTimeout(this.effect, after);
  }
}
