// Metrics of the plugin's own. A series is a Prometheus name with labels: `moves_total{game="chess"}`.
import { at, utf8 } from "./abi";
import * as raw from "./raw/metrics";

/** Add to a counter. */
export function count(series: string, by: u64 = 1): void {
  const name = utf8(series);
  raw.count(at(name), name.byteLength, by);
}

/** Set a gauge. */
export function gauge(series: string, value: f64): void {
  const name = utf8(series);
  raw.gauge(at(name), name.byteLength, value);
}

/** Observe a value for a histogram. */
export function observe(series: string, value: f64): void {
  const name = utf8(series);
  raw.observe(at(name), name.byteLength, value);
}
