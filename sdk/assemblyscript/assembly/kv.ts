// A store shared by the plugin's instances on every node; may wait. These act at once: they are no effects.
import { RESULT, at, refusal, refusalAt, someBytesAt, utf8 } from "./abi";
import * as raw from "./raw/kv";
import { Refusal } from "./types";

/** A value, null if the key is missing. */
export class Value {
  constructor(
    readonly refusal: Refusal,
    readonly bytes: ArrayBuffer | null,
  ) {}

  /** The bytes as UTF-8. */
  get text(): string | null {
    const bytes = this.bytes;
    return bytes === null ? null : String.UTF8.decode(bytes);
  }
}

export class Incremented {
  constructor(
    readonly refusal: Refusal,
    readonly value: i64,
  ) {}
}

export class Exchanged {
  constructor(
    readonly refusal: Refusal,
    /** False: the value was something else. */
    readonly done: bool,
  ) {}
}

export function get(key: string): Value {
  const name = utf8(key);
  raw.get(at(name), name.byteLength, RESULT);
  const refused = refusalAt(4);
  return new Value(refused, refused == Refusal.None ? someBytesAt(RESULT + 4) : null);
}

/** `ttl` in milliseconds, 0 for ever. */
export function set(key: string, value: ArrayBuffer, ttl: u64): Refusal {
  const name = utf8(key);
  raw.set(at(name), name.byteLength, at(value), value.byteLength, ttl, RESULT);
  return refusal();
}

export function remove(key: string): Refusal {
  const name = utf8(key);
  raw.remove(at(name), name.byteLength, RESULT);
  return refusal();
}

/** The new value. A missing key counts as 0 and gets the `ttl`; one that is there keeps its own. */
export function increment(key: string, by: i64, ttl: u64): Incremented {
  const name = utf8(key);
  raw.increment(at(name), name.byteLength, by, ttl, RESULT);
  const refused = refusalAt(8);
  return new Incremented(refused, refused == Refusal.None ? load<i64>(RESULT, 8) : 0);
}

/** Set if the value is `expected` (null: if the key is missing). */
export function compareAndSet(key: string, expected: ArrayBuffer | null, value: ArrayBuffer, ttl: u64): Exchanged {
  const name = utf8(key);
  const is: i32 = expected === null ? 0 : 1;
  const old = expected === null ? 0 : at(expected), oldLength = expected === null ? 0 : expected.byteLength;
  raw.compareAndSet(at(name), name.byteLength, is, old, oldLength, at(value), value.byteLength, ttl, RESULT);
  const refused = refusalAt(1);
  return new Exchanged(refused, refused == Refusal.None && load<u8>(RESULT, 1) != 0);
}
