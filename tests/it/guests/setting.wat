;; Answers each message with its setting `word`, as `init` found it. Without one it cannot serve.
(module
  (import "tidegate:plugin/config@0.1.0" "get" (func $get (param i32 i32 i32)))
  (import "tidegate:plugin/session@0.1.0" "send" (func $send (param i64 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 256) "word")
  (data (i32.const 272) "no word is set")
  (global $top (mut i32) (i32.const 1024))
  (global $keep (mut i32) (i32.const 1024))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $p i32)
    (local.set $p (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $p) (local.get 3)))
    (local.get $p))
  (func (export "tidegate:plugin/on-init@0.1.0#handle") (result i32)
    (call $get (i32.const 256) (i32.const 4) (i32.const 128))
    (global.set $keep (global.get $top))
    (if (i32.load8_u (i32.const 128))
      (then (i32.store8 (i32.const 64) (i32.const 0)))   ;; ok
      (else
        (i32.store8 (i32.const 64) (i32.const 1))        ;; err
        (i32.store (i32.const 68) (i32.const 272))
        (i32.store (i32.const 72) (i32.const 14))))
    (i32.const 64))
  (func (export "tidegate:plugin/on-inbound@0.1.0#handle") (param $session i64) (param i32 i32 i32) (result i32)
    (drop (call $send (local.get $session) (i32.const 0) (i32.load (i32.const 132)) (i32.load (i32.const 136))))
    (global.set $top (global.get $keep))
    (i32.store8 (i32.const 64) (i32.const 0))   ;; ok
    (i32.store8 (i32.const 68) (i32.const 2))   ;; stop
    (i32.const 64)))
