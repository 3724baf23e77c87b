// What a topic has kept; may wait for the store.
import { RESULT, at, refusalAt, utf8 } from "./abi";
import { Publication } from "./publication";
import * as raw from "./raw/history";
import { Position, Refusal } from "./types";

export class Page {
  constructor(
    readonly refusal: Refusal,
    /** Oldest first. */
    readonly publications: Publication[],
    /** Where the topic stood at the moment of reading: the place to subscribe from. */
    readonly position: Position,
    /** False: something between `since` and the first of these is lost. */
    readonly complete: bool,
  ) {}
}

/** Up to `limit` publications: the first after `since`, or (null) the last of all. */
export function read(topic: string, since: Position | null, limit: u32): Page {
  const name = utf8(topic);
  if (since === null) raw.read(at(name), name.byteLength, 0, 0, 0, limit, RESULT);
  else raw.read(at(name), name.byteLength, 1, since.epoch, since.offset, limit, RESULT);
  const publications = new Array<Publication>(0);
  const refused = refusalAt(8);
  if (refused != Refusal.None) return new Page(refused, publications, new Position(0, 0), false);
  const list = load<u32>(RESULT, 8), length = load<u32>(RESULT, 12);
  for (let i: u32 = 0; i < length; i++) publications.push(new Publication(load<u64>(list + 8 * i)));
  if (length) heap.free(list);
  const position = new Position(load<u64>(RESULT, 16), load<u64>(RESULT, 24));
  return new Page(refused, publications, position, load<u8>(RESULT, 32) != 0);
}
