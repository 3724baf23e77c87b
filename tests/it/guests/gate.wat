;; Lets everybody in, and answers each message with "A".
(module
  (import "tidegate:plugin/session@0.1.0" "send" (func $send (param i64 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 256) "A")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "tidegate:plugin/on-authenticate@0.1.0#handle") (param $session i64) (result i32)
    (i32.store8 (i32.const 64) (i32.const 0))     ;; ok
    (i32.store8 (i32.const 68) (i32.const 2 (; the decision ;)))
    (i32.store16 (i32.const 72) (i32.const 0 (; the status ;)))
    (nop (; before the answer ;))
    (i32.const 64))
  (func (export "tidegate:plugin/on-inbound@0.1.0#handle") (param $session i64) (param i32 i32 i32) (result i32)
    (drop (call $send (local.get $session) (i32.const 0) (i32.const 256) (i32.const 1)))
    (i32.store8 (i32.const 64) (i32.const 0))     ;; ok
    (i32.store8 (i32.const 68) (i32.const 2))     ;; stop
    (i32.const 64)))
