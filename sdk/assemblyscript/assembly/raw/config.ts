// The interface `config` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/config@0.1.0", "get")
export declare function get(path: usize, pathLength: usize, result: usize): void;

@external("tidegate:plugin/config@0.1.0", "json")
export declare function json(result: usize): void;
