;; Cannot serve: its `init` answers an error.
(module
  (memory (export "memory") 1)
  (data (i32.const 256) "the licence has run out")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "tidegate:plugin/on-init@0.1.0#handle") (result i32)
    (i32.store8 (i32.const 64) (i32.const 1))   ;; err
    (i32.store (i32.const 68) (i32.const 256))
    (i32.store (i32.const 72) (i32.const 23))
    (i32.const 64))
  (func (export "tidegate:plugin/on-inbound@0.1.0#handle") (param i64 i32 i32 i32) (result i32)
    (i32.store8 (i32.const 64) (i32.const 0))   ;; ok
    (i32.store8 (i32.const 68) (i32.const 2))   ;; stop
    (i32.const 64)))
