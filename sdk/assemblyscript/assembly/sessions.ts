// One session anywhere in the cluster, by its id; needs the grant `sessions`.
import { RESULT, accepted, at, utf8 } from "./abi";
import * as raw from "./raw/sessions";
import { Accepted, Message } from "./types";

/** Effect. No refusal, and nothing happens, when the session is not there. */
export function send(id: string, message: Message): Accepted {
  const name = utf8(id);
  raw.send(at(name), name.byteLength, message.kind, at(message.bytes), message.length, RESULT);
  return accepted();
}

/** Effect. */
export function subscribe(id: string, topic: string): Accepted {
  const name = utf8(id), where = utf8(topic);
  raw.subscribe(at(name), name.byteLength, at(where), where.byteLength, RESULT);
  return accepted();
}

/** Effect. */
export function unsubscribe(id: string, topic: string): Accepted {
  const name = utf8(id), where = utf8(topic);
  raw.unsubscribe(at(name), name.byteLength, at(where), where.byteLength, RESULT);
  return accepted();
}

/** Effect. Codes and reason as in `Session.close`. */
export function disconnect(id: string, code: u16, reason: string): Accepted {
  const name = utf8(id), why = utf8(reason);
  raw.disconnect(at(name), name.byteLength, code, at(why), why.byteLength, RESULT);
  return accepted();
}
