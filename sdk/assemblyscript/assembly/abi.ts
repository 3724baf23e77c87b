// The canonical ABI: how strings, lists and results cross the border. Only the files of this package use it.
import { Accepted, Field, Message, Position, Refusal } from "./types";

// Where imports put results that are not one number.
export const RESULT: usize = memory.data(72, 8);

/** How the gateway gets memory for what it hands over. What it has put there is freed by the functions below. */
export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  if (!size) return align;
  return oldSize ? heap.realloc(old, size) : heap.alloc(size);
}

// Strings are UTF-8 outside and UTF-16 inside; half a character, which a cut may leave, becomes U+FFFD, since the
// gateway traps what is not UTF-8. A buffer must stay in a variable as long as its address is used.

export function utf8(text: string): ArrayBuffer {
  return String.UTF8.encode(text, false, String.UTF8.ErrorMode.REPLACE);
}

export function at(buffer: ArrayBuffer): usize {
  return changetype<usize>(buffer);
}

export function takeString(pointer: usize, length: usize): string {
  if (!length) return "";
  const text = String.UTF8.decodeUnsafe(pointer, length);
  heap.free(pointer);
  return text;
}

export function takeBytes(pointer: usize, length: usize): ArrayBuffer {
  const bytes = new ArrayBuffer(i32(length));
  if (length) {
    memory.copy(at(bytes), pointer, length);
    heap.free(pointer);
  }
  return bytes;
}

export function takeMessage(kind: i32, pointer: usize, length: usize): Message {
  return new Message(kind == 0, takeBytes(pointer, length));
}

// What stands at an address, usually RESULT. Offsets are the canonical ABI's.

export function stringAt(address: usize): string {
  return takeString(load<u32>(address), load<u32>(address, 4));
}

export function bytesAt(address: usize): ArrayBuffer {
  return takeBytes(load<u32>(address), load<u32>(address, 4));
}

/** `option<string>` */
export function someStringAt(address: usize): string | null {
  return load<u8>(address) ? stringAt(address + 4) : null;
}

/** `option<list<u8>>` */
export function someBytesAt(address: usize): ArrayBuffer | null {
  return load<u8>(address) ? bytesAt(address + 4) : null;
}

/** `option<position>` */
export function somePositionAt(address: usize): Position | null {
  return load<u8>(address) ? new Position(load<u64>(address, 8), load<u64>(address, 16)) : null;
}

export function stringsAt(address: usize): string[] {
  const list = load<u32>(address), length = load<u32>(address, 4);
  const strings = new Array<string>(length);
  for (let i: u32 = 0; i < length; i++) strings[i] = stringAt(list + 8 * i);
  if (length) heap.free(list);
  return strings;
}

export function fieldsAt(address: usize): Field[] {
  const list = load<u32>(address), length = load<u32>(address, 4);
  const fields = new Array<Field>(0);
  for (let i: u32 = 0; i < length; i++) fields.push(new Field(stringAt(list + 16 * i), stringAt(list + 16 * i + 8)));
  if (length) heap.free(list);
  return fields;
}

/** `result<_, refusal>` in RESULT */
export function refusal(): Refusal {
  return load<u8>(RESULT) ? <Refusal>i32(load<u8>(RESULT, 1)) : Refusal.None;
}

/** `result<T, refusal>` in RESULT, where T begins at `offset` */
export function refusalAt(offset: usize): Refusal {
  return load<u8>(RESULT) ? <Refusal>i32(load<u8>(RESULT + offset)) : Refusal.None;
}

/** `result<effect, refusal>` in RESULT */
export function accepted(): Accepted {
  const refused = refusalAt(4);
  return new Accepted(refused, refused == Refusal.None ? load<u32>(RESULT, 4) : 0);
}

@external("tidegate:plugin/log@0.1.0", "write")
declare function write(level: i32, message: usize, length: usize): void;

/** What asc calls when something must not be (`--use abort=…`): the place goes to the log, and the call traps. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const why = message === null ? "" : ": " + message, where = file === null ? "?" : file;
  const told = utf8(`abort at ${where}:${line}${why}`);
  write(4, at(told), told.byteLength);
  unreachable();
}
