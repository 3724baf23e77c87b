// Time, which a replay may set.
import * as raw from "./raw/clock";

/** Unix time in milliseconds. */
export function now(): u64 {
  return raw.now();
}

/** Nanoseconds since some point in the past; never goes back. */
export function monotonic(): u64 {
  return raw.monotonic();
}
