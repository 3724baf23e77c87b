// Log lines under the plugin's name. They are written even when the event fails.
import { at, utf8 } from "./abi";
import * as raw from "./raw/log";
import { Field } from "./types";

export enum Level {
  Trace,
  Debug,
  Info,
  Warn,
  Error,
}

/** Whether a line of this level would be written. */
export function enabled(level: Level): bool {
  return raw.enabled(level) != 0;
}

/** Up to 8 KiB; the rest is cut. */
export function write(level: Level, message: string, fields: Field[] = []): void {
  if (!enabled(level)) return;
  const text = utf8(message);
  if (!fields.length) return raw.write(level, at(text), text.byteLength);
  const list = new StaticArray<u32>(fields.length * 4);
  const kept = new Array<ArrayBuffer>(0);
  for (let i = 0; i < fields.length; i++) {
    const name = utf8(fields[i].name), value = utf8(fields[i].value);
    kept.push(name);
    kept.push(value);
    list[4 * i] = u32(at(name));
    list[4 * i + 1] = name.byteLength;
    list[4 * i + 2] = u32(at(value));
    list[4 * i + 3] = value.byteLength;
  }
  raw.writeFields(level, at(text), text.byteLength, changetype<usize>(list), fields.length);
}

export function debug(message: string, fields: Field[] = []): void {
  write(Level.Debug, message, fields);
}

export function info(message: string, fields: Field[] = []): void {
  write(Level.Info, message, fields);
}

export function warn(message: string, fields: Field[] = []): void {
  write(Level.Warn, message, fields);
}

export function error(message: string, fields: Field[] = []): void {
  write(Level.Error, message, fields);
}
