// Every session of a user, anywhere in the cluster; needs the grant `users`.
import { RESULT, accepted, at, utf8 } from "./abi";
import * as raw from "./raw/users";
import { Accepted, Message } from "./types";

/** Effect. No refusal, and nothing happens, when the user is not there. */
export function send(user: string, message: Message): Accepted {
  const name = utf8(user);
  raw.send(at(name), name.byteLength, message.kind, at(message.bytes), message.length, RESULT);
  return accepted();
}

/** Effect. */
export function subscribe(user: string, topic: string): Accepted {
  const name = utf8(user), where = utf8(topic);
  raw.subscribe(at(name), name.byteLength, at(where), where.byteLength, RESULT);
  return accepted();
}

/** Effect. */
export function unsubscribe(user: string, topic: string): Accepted {
  const name = utf8(user), where = utf8(topic);
  raw.unsubscribe(at(name), name.byteLength, at(where), where.byteLength, RESULT);
  return accepted();
}

/** Effect. Codes and reason as in `Session.close`. */
export function disconnect(user: string, code: u16, reason: string): Accepted {
  const name = utf8(user), why = utf8(reason);
  raw.disconnect(at(name), name.byteLength, code, at(why), why.byteLength, RESULT);
  return accepted();
}
