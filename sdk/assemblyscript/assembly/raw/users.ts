// The interface `users` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/users@0.1.0", "send")
export declare function send(
  user: usize, userLength: usize, kind: i32, data: usize, length: usize, result: usize,
): void;

@external("tidegate:plugin/users@0.1.0", "subscribe")
export declare function subscribe(
  user: usize, userLength: usize, topic: usize, topicLength: usize, result: usize,
): void;

@external("tidegate:plugin/users@0.1.0", "unsubscribe")
export declare function unsubscribe(
  user: usize, userLength: usize, topic: usize, topicLength: usize, result: usize,
): void;

@external("tidegate:plugin/users@0.1.0", "disconnect")
export declare function disconnect(
  user: usize, userLength: usize, code: i32, reason: usize, reasonLength: usize, result: usize,
): void;
