// The interface `metrics` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/metrics@0.1.0", "count")
export declare function count(series: usize, seriesLength: usize, by: u64): void;

@external("tidegate:plugin/metrics@0.1.0", "gauge")
export declare function gauge(series: usize, seriesLength: usize, value: f64): void;

@external("tidegate:plugin/metrics@0.1.0", "observe")
export declare function observe(series: usize, seriesLength: usize, value: f64): void;
