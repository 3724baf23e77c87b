// Randomness fit for secrets, which a replay may repeat.
import { RESULT, bytesAt } from "./abi";
import * as raw from "./raw/random";

export function number(): u64 {
  return raw.number();
}

/** Up to 64 KiB. */
export function bytes(length: u32): ArrayBuffer {
  raw.bytes(length, RESULT);
  return bytesAt(RESULT);
}
