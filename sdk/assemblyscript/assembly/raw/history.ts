// The interface `history` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/history@0.1.0", "read")
export declare function read(
  topic: usize, topicLength: usize, some: i32, epoch: u64, offset: u64, limit: u32, result: usize,
): void;
