;; Sends each message back; then its first letter says how to misbehave: t trap, l loop for ever, m take all memory,
;; r recurse without end, e answer an error, s send for ever, p a pointer out of bounds, h call the host for ever,
;; w a wrong session, B take all table elements, O send a kibibyte for ever. Anything else is well behaved.
(module
  (import "tidegate:plugin/session@0.1.0" "send" (func $send (param i64 i32 i32 i32) (result i32)))
  (import "tidegate:plugin/clock@0.1.0" "now" (func $now (result i64)))
  (memory (export "memory") 1)
  (table $functions 1 funcref)
  (global $top (mut i32) (i32.const 1024))
  (data (i32.const 256) "a sentence for the operator")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $p i32)
    (local.set $p (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $p) (local.get 3)))
    (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
      (then (if (i32.eq (memory.grow (i32.add (i32.shr_u (local.get 3) (i32.const 16)) (i32.const 1))) (i32.const -1))
        (then unreachable))))
    (local.get $p))
  (func $recurse (param i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func (export "tidegate:plugin/on-inbound@0.1.0#handle")
    (param $session i64) (param $kind i32) (param $at i32) (param $len i32) (result i32)
    (local $letter i32)
    (local.set $letter (i32.load8_u (local.get $at)))
    (drop (call $send (local.get $session) (local.get $kind) (local.get $at) (local.get $len)))
    (if (i32.eq (local.get $letter) (i32.const 116)) (then unreachable))
    (if (i32.eq (local.get $letter) (i32.const 108)) (then (loop $ever (br $ever))))
    (if (i32.eq (local.get $letter) (i32.const 109))
      (then (loop $ever
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (br $ever))))
    (if (i32.eq (local.get $letter) (i32.const 114)) (then (drop (call $recurse (i32.const 0)))))
    (if (i32.eq (local.get $letter) (i32.const 115))
      (then (loop $ever
        (drop (call $send (local.get $session) (local.get $kind) (local.get $at) (local.get $len)))
        (br $ever))))
    (if (i32.eq (local.get $letter) (i32.const 112))
      (then (drop (call $send (local.get $session) (local.get $kind) (i32.const 65530) (i32.const 100000000)))))
    (if (i32.eq (local.get $letter) (i32.const 104)) (then (loop $ever (drop (call $now)) (br $ever))))
    (if (i32.eq (local.get $letter) (i32.const 119))
      (then (drop (call $send (i64.add (local.get $session) (i64.const 1)) (local.get $kind) (local.get $at) (local.get $len)))))
    (if (i32.eq (local.get $letter) (i32.const 66))
      (then (loop $ever
        (if (i32.eq (table.grow $functions (ref.null func) (i32.const 100)) (i32.const -1)) (then unreachable))
        (br $ever))))
    (if (i32.eq (local.get $letter) (i32.const 79))
      (then (loop $ever
        (drop (call $send (local.get $session) (i32.const 1) (i32.const 4096) (i32.const 1024)))
        (br $ever))))
    (global.set $top (i32.const 1024))
    (if (i32.eq (local.get $letter) (i32.const 101))
      (then
        (i32.store8 (i32.const 64) (i32.const 1))     ;; err
        (i32.store (i32.const 68) (i32.const 256))
        (i32.store (i32.const 72) (i32.const 27))
        (return (i32.const 64))))
    (i32.store8 (i32.const 64) (i32.const 0))   ;; ok
    (i32.store8 (i32.const 68) (i32.const 2))   ;; stop
    (i32.const 64)))
