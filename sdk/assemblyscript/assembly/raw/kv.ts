// The interface `kv` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/kv@0.1.0", "get")
export declare function get(key: usize, keyLength: usize, result: usize): void;

@external("tidegate:plugin/kv@0.1.0", "set")
export declare function set(
  key: usize, keyLength: usize, value: usize, valueLength: usize, ttl: u64, result: usize,
): void;

@external("tidegate:plugin/kv@0.1.0", "delete")
export declare function remove(key: usize, keyLength: usize, result: usize): void;

@external("tidegate:plugin/kv@0.1.0", "increment")
export declare function increment(key: usize, keyLength: usize, by: i64, ttl: u64, result: usize): void;

@external("tidegate:plugin/kv@0.1.0", "compare-and-set")
export declare function compareAndSet(
  key: usize, keyLength: usize, some: i32, expected: usize, expectedLength: usize, value: usize, valueLength: usize,
  ttl: u64, result: usize,
): void;
