// The interface `clock` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/clock@0.1.0", "now")
export declare function now(): u64;

@external("tidegate:plugin/clock@0.1.0", "monotonic")
export declare function monotonic(): u64;
