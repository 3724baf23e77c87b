;; A message is the name of a topic: subscribes the session to it, publishes the name on it, and only then sends how both
;; were answered: "S" and "P", each followed by "+" for accepted or by the number of its refusal.
(module
  (import "tidegate:plugin/session@0.1.0" "send" (func $send (param i64 i32 i32 i32) (result i32)))
  (import "tidegate:plugin/session@0.1.0" "subscribe" (func $subscribe (param i64 i32 i32 i32)))
  (import "tidegate:plugin/topics@0.1.0" "publish" (func $publish (param i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (global $top (mut i32) (i32.const 1024))
  (data (i32.const 256) "S+P+")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $p i32)
    (local.set $p (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $p) (local.get 3)))
    (local.get $p))
  (func $tell (param $at i32) (result i32)
    (if (result i32) (i32.load8_u (local.get $at))
      (then (i32.add (i32.const 48) (i32.load8_u offset=4 (local.get $at))))
      (else (i32.const 43))))
  (func (export "tidegate:plugin/on-inbound@0.1.0#handle")
    (param $session i64) (param $kind i32) (param $at i32) (param $len i32) (result i32)
    (call $subscribe (local.get $session) (local.get $at) (local.get $len) (i32.const 128))
    (i32.store8 (i32.const 257) (call $tell (i32.const 128)))
    (call $publish (local.get $at) (local.get $len) (i32.const 0) (local.get $at) (local.get $len) (i32.const 128))
    (i32.store8 (i32.const 259) (call $tell (i32.const 128)))
    (drop (call $send (local.get $session) (i32.const 0) (i32.const 256) (i32.const 4)))
    (global.set $top (i32.const 1024))
    (i32.store8 (i32.const 64) (i32.const 0))   ;; ok
    (i32.store8 (i32.const 68) (i32.const 2))   ;; stop
    (i32.const 64)))
