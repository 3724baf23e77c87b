// The interface `sessions` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/sessions@0.1.0", "send")
export declare function send(id: usize, idLength: usize, kind: i32, data: usize, length: usize, result: usize): void;

@external("tidegate:plugin/sessions@0.1.0", "subscribe")
export declare function subscribe(id: usize, idLength: usize, topic: usize, topicLength: usize, result: usize): void;

@external("tidegate:plugin/sessions@0.1.0", "unsubscribe")
export declare function unsubscribe(id: usize, idLength: usize, topic: usize, topicLength: usize, result: usize): void;

@external("tidegate:plugin/sessions@0.1.0", "disconnect")
export declare function disconnect(
  id: usize, idLength: usize, code: i32, reason: usize, reasonLength: usize, result: usize,
): void;
