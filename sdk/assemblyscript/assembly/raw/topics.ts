// The interface `topics` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/topics@0.1.0", "publish")
export declare function publish(
  topic: usize, topicLength: usize, kind: i32, data: usize, length: usize, result: usize,
): void;

@external("tidegate:plugin/topics@0.1.0", "with-exclude")
export declare function withExclude(effect: u32, session: u64): void;

@external("tidegate:plugin/topics@0.1.0", "with-exclude-id")
export declare function withExcludeId(effect: u32, id: usize, idLength: usize): void;

@external("tidegate:plugin/topics@0.1.0", "with-history")
export declare function withHistory(effect: u32, size: u32, ttl: u64): void;

@external("tidegate:plugin/topics@0.1.0", "with-idempotency-key")
export declare function withIdempotencyKey(effect: u32, key: usize, keyLength: usize, result: usize): void;

@external("tidegate:plugin/topics@0.1.0", "with-key")
export declare function withKey(effect: u32, key: usize, keyLength: usize, result: usize): void;

@external("tidegate:plugin/topics@0.1.0", "with-metadata")
export declare function withMetadata(
  effect: u32, name: usize, nameLength: usize, value: usize, valueLength: usize, result: usize,
): void;
