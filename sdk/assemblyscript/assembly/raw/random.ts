// The interface `random` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/random@0.1.0", "number")
export declare function number(): u64;

@external("tidegate:plugin/random@0.1.0", "bytes")
export declare function bytes(length: u32, result: usize): void;
