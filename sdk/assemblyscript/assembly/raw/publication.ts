// The interface `publication` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/publication@0.1.0", "topic")
export declare function topic(publication: u64, result: usize): void;

@external("tidegate:plugin/publication@0.1.0", "content")
export declare function content(publication: u64, result: usize): void;

@external("tidegate:plugin/publication@0.1.0", "history-position")
export declare function historyPosition(publication: u64, result: usize): void;

@external("tidegate:plugin/publication@0.1.0", "time")
export declare function time(publication: u64): u64;

@external("tidegate:plugin/publication@0.1.0", "key")
export declare function key(publication: u64, result: usize): void;

@external("tidegate:plugin/publication@0.1.0", "metadata")
export declare function metadata(publication: u64, name: usize, nameLength: usize, result: usize): void;
