// The interface `log` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/log@0.1.0", "enabled")
export declare function enabled(level: i32): i32;

@external("tidegate:plugin/log@0.1.0", "write")
export declare function write(level: i32, message: usize, messageLength: usize): void;

@external("tidegate:plugin/log@0.1.0", "write-fields")
export declare function writeFields(
  level: i32, message: usize, messageLength: usize, fields: usize, fieldsLength: usize,
): void;
