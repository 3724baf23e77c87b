;; Lets everybody in, after most of a second of thinking.
(module
  (import "tidegate:plugin/clock@0.1.0" "monotonic" (func $monotonic (result i64)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func $think (local $left i32)
    (local.set $left (i32.const 1000000))
    (loop $more
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $more (local.get $left))))
  (func (export "tidegate:plugin/on-authenticate@0.1.0#handle") (param $session i64) (result i32)
    (local $end i64)
    (local.set $end (i64.add (call $monotonic) (i64.const 800000000)))
    (loop $more
      (call $think)
      (br_if $more (i64.lt_u (call $monotonic) (local.get $end))))
    (i32.store8 (i32.const 64) (i32.const 0))   ;; ok
    (i32.store8 (i32.const 68) (i32.const 2))   ;; admit
    (i32.store8 (i32.const 72) (i32.const 0))   ;; none
    (i32.const 64)))
