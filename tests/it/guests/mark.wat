;; Sends each message back with its first byte replaced by a mark, "A" unless the test puts another in its place.
(module
  (import "tidegate:plugin/session@0.1.0" "send" (func $send (param i64 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $top (mut i32) (i32.const 1024))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $p i32)
    (local.set $p (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $p) (local.get 3)))
    (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
      (then (if (i32.eq (memory.grow (i32.add (i32.shr_u (local.get 3) (i32.const 16)) (i32.const 1))) (i32.const -1))
        (then unreachable))))
    (local.get $p))
  (func (export "tidegate:plugin/on-inbound@0.1.0#handle")
    (param $session i64) (param $kind i32) (param $at i32) (param $len i32) (result i32)
    (if (local.get $len) (then (i32.store8 (local.get $at) (i32.const 65 (; the mark ;)))))
    (drop (call $send (local.get $session) (local.get $kind) (local.get $at) (local.get $len)))
    (global.set $top (i32.const 1024))
    (i32.store8 (i32.const 64) (i32.const 0))   ;; ok
    (i32.store8 (i32.const 68) (i32.const 2))   ;; stop
    (i32.const 64)))
