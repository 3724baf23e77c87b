// A publication that a hook was called for or that was read from a history.
import { RESULT, at, somePositionAt, someStringAt, stringAt, takeMessage, utf8 } from "./abi";
import * as raw from "./raw/publication";
import { Message, Position } from "./types";

/** Good as long as the call runs that received it. */
export class Publication {
  constructor(readonly handle: u64) {}

  get topic(): string {
    raw.topic(this.handle, RESULT);
    return stringAt(RESULT);
  }

  get content(): Message {
    raw.content(this.handle, RESULT);
    return takeMessage(load<u8>(RESULT), load<u32>(RESULT, 4), load<u32>(RESULT, 8));
  }

  /** Null where the topic keeps no history, and before the broker has accepted it. */
  get position(): Position | null {
    raw.historyPosition(this.handle, RESULT);
    return somePositionAt(RESULT);
  }

  /** When it was made: Unix time in milliseconds. */
  get time(): u64 {
    return raw.time(this.handle);
  }

  get key(): string | null {
    raw.key(this.handle, RESULT);
    return someStringAt(RESULT);
  }

  metadata(name: string): string | null {
    const key = utf8(name);
    raw.metadata(this.handle, at(key), key.byteLength, RESULT);
    return someStringAt(RESULT);
  }
}
