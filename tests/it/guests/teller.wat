;; Logs each message, counts it in the store, and says "tick" thirty seconds after the last.
(module
  (import "tidegate:plugin/session@0.1.0" "send" (func $send (param i64 i32 i32 i32) (result i32)))
  (import "tidegate:plugin/session@0.1.0" "set-timer" (func $set-timer (param i64 i32 i32 i64 i32)))
  (import "tidegate:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))
  (import "tidegate:plugin/kv@0.1.0" "increment" (func $increment (param i32 i32 i64 i64 i32)))
  (memory (export "memory") 1)
  (data (i32.const 256) "tick")
  (data (i32.const 272) "heard")
  (data (i32.const 288) "n:heard")
  (global $free (mut i32) (i32.const 1024))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.get $free)
    (global.set $free (i32.and (i32.add (i32.add (global.get $free) (local.get 3)) (i32.const 7)) (i32.const -8))))
  (func (export "tidegate:plugin/on-inbound@0.1.0#handle") (param $session i64) (param i32 i32 i32) (result i32)
    (global.set $free (i32.const 1024))
    (call $log (i32.const 2) (i32.const 272) (i32.const 5))
    (call $increment (i32.const 288) (i32.const 7) (i64.const 1) (i64.const 60000) (i32.const 512))
    (call $set-timer (local.get $session) (i32.const 256) (i32.const 4) (i64.const 30000) (i32.const 640))
    (i32.store8 (i32.const 64) (i32.const 0))   ;; ok
    (i32.store8 (i32.const 68) (i32.const 2))   ;; stop
    (i32.const 64))
  (func (export "tidegate:plugin/on-timer@0.1.0#handle") (param $session i64) (param i32 i32) (result i32)
    (global.set $free (i32.const 1024))
    (drop (call $send (local.get $session) (i32.const 0) (i32.const 256) (i32.const 4)))
    (i32.store8 (i32.const 64) (i32.const 0))   ;; ok
    (i32.const 64)))
