// The interface `presence` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/presence@0.1.0", "count")
export declare function count(topic: usize, topicLength: usize, result: usize): void;

@external("tidegate:plugin/presence@0.1.0", "members")
export declare function members(topic: usize, topicLength: usize, limit: u32, result: usize): void;

@external("tidegate:plugin/presence@0.1.0", "has-user")
export declare function hasUser(topic: usize, topicLength: usize, user: usize, userLength: usize, result: usize): void;
