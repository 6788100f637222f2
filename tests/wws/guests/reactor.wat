;; As languages/zig.md has workers built (-mexec-model=reactor): there is no _start,
;; and `main` runs within _initialize.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16)
    "{\"data\":\"hello from a reactor\",\"status\":200,\"base64\":false,\"headers\":{\"x-generated-by\":\"a worker\"},\"kv\":{}}")
  (func (export "_initialize")
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 107))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
