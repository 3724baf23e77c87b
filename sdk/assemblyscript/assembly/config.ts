// The plugin's table in the gateway's configuration.
import { RESULT, at, someStringAt, stringAt, utf8 } from "./abi";
import * as raw from "./raw/config";

/** The value at a dotted path: a string as it is, anything else as JSON. Null: not there. */
export function get(path: string): string | null {
  const name = utf8(path);
  raw.get(at(name), name.byteLength, RESULT);
  return someStringAt(RESULT);
}

/** The whole table as a JSON object. */
export function json(): string {
  raw.json(RESULT);
  return stringAt(RESULT);
}
