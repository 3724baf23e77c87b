// Who is on a topic; may wait for the store.
import { RESULT, at, refusalAt, someStringAt, stringAt, utf8 } from "./abi";
import * as raw from "./raw/presence";
import { Refusal } from "./types";

export class Counts {
  constructor(
    readonly refusal: Refusal,
    readonly sessions: u32,
    readonly users: u32,
  ) {}
}

export class Member {
  constructor(
    readonly sessionId: string,
    readonly user: string | null,
    /** As given to `withPresence`. */
    readonly info: string,
  ) {}
}

export class Members {
  constructor(
    readonly refusal: Refusal,
    readonly members: Member[],
  ) {}
}

export class Found {
  constructor(
    readonly refusal: Refusal,
    readonly found: bool,
  ) {}
}

export function count(topic: string): Counts {
  const name = utf8(topic);
  raw.count(at(name), name.byteLength, RESULT);
  const refused = refusalAt(4);
  if (refused != Refusal.None) return new Counts(refused, 0, 0);
  return new Counts(refused, load<u32>(RESULT, 4), load<u32>(RESULT, 8));
}

/** Up to `limit` members (at most 1,000), in no order. */
export function members(topic: string, limit: u32): Members {
  const name = utf8(topic);
  raw.members(at(name), name.byteLength, limit, RESULT);
  const members = new Array<Member>(0);
  const refused = refusalAt(4);
  if (refused != Refusal.None) return new Members(refused, members);
  const list = load<u32>(RESULT, 4), length = load<u32>(RESULT, 8);
  for (let i: u32 = 0; i < length; i++) {
    const member = list + 28 * i;
    const id = stringAt(member), user = someStringAt(member + 8), info = stringAt(member + 20);
    members.push(new Member(id, user, info));
  }
  if (length) heap.free(list);
  return new Members(refused, members);
}

export function hasUser(topic: string, user: string): Found {
  const name = utf8(topic), who = utf8(user);
  raw.hasUser(at(name), name.byteLength, at(who), who.byteLength, RESULT);
  const refused = refusalAt(1);
  return new Found(refused, refused == Refusal.None && load<u8>(RESULT, 1) != 0);
}
