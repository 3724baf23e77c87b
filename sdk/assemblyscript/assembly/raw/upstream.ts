// The interface `upstream` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/upstream@0.1.0", "forward")
export declare function forward(
  session: u64, upstream: usize, upstreamLength: usize, kind: i32, data: usize, length: usize, result: usize,
): void;

@external("tidegate:plugin/upstream@0.1.0", "request")
export declare function request(
  session: u64, upstream: usize, upstreamLength: usize, tag: usize, tagLength: usize, kind: i32, data: usize,
  length: usize, result: usize,
): void;

@external("tidegate:plugin/upstream@0.1.0", "with-header")
export declare function withHeader(
  effect: u32, name: usize, nameLength: usize, value: usize, valueLength: usize, result: usize,
): void;

@external("tidegate:plugin/upstream@0.1.0", "with-timeout")
export declare function withTimeout(effect: u32, after: u64): void;
