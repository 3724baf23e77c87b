;; Counts its messages under the key "n" of the store, and answers each with the count's last digit.
(module
  (import "tidegate:plugin/session@0.1.0" "send" (func $send (param i64 i32 i32 i32) (result i32)))
  (import "tidegate:plugin/kv@0.1.0" "increment" (func $increment (param i32 i32 i64 i64 i32)))
  (memory (export "memory") 1)
  (data (i32.const 256) "n")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "tidegate:plugin/on-inbound@0.1.0#handle") (param $session i64) (param i32 i32 i32) (result i32)
    (call $increment (i32.const 256) (i32.const 1) (i64.const 1) (i64.const 0) (i32.const 128))
    (if (i32.load8_u (i32.const 128)) (then unreachable))
    (i32.store8 (i32.const 272) (i32.wrap_i64 (i64.add (i64.const 48) (i64.rem_u (i64.load (i32.const 136)) (i64.const 10)))))
    (drop (call $send (local.get $session) (i32.const 0) (i32.const 272) (i32.const 1)))
    (i32.store8 (i32.const 64) (i32.const 0))   ;; ok
    (i32.store8 (i32.const 68) (i32.const 2))   ;; stop
    (i32.const 64)))
