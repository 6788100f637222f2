;; Stands between the component and Ruby's module, as adapters of preview 1 do:
;; it serves the module's imports `rb-js-abi-host`, and has the component's
;; export, which calls the module's functions.
;;
;; In ruby.wasm these imports are JavaScript's; without it `JS.eval` is a way
;; out of Ruby with a string, and `JS::Object#to_s` one back. What is evaluated
;; here is a call of the host (see ruby/wharf/kv.rb):
;;   0: u32 operation, 4: u32 a, 8: u32 b, 12: u32 c, 16: bytes
;; and its answer the 32 bytes that the canonical ABI returns, or the memory
;; that they point to.
(module
  (import "env" "memory" (memory 0))
  (import "__main_module__" "cabi_realloc"
    (func $realloc (param i32 i32 i32 i32) (result i32)))
  (import "__main_module__" "rb-eval-string-protect: func(str: string) -> tuple<handle<rb-abi-value>, s32>"
    (func $eval (param i32 i32) (result i32)))

  ;; Of preview 1, by the module's own import of them.
  (import "__main_module__" "fd_prestat_get"
    (func $prestat (param i32 i32) (result i32)))
  (import "__main_module__" "fd_prestat_dir_name"
    (func $prestat-name (param i32 i32 i32) (result i32)))

  (import "wasi:keyvalue/store@0.2.0-draft" "open"
    (func $open (param i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.get"
    (func $get (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.set"
    (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.delete"
    (func $delete (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.exists"
    (func $exists (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.list-keys"
    (func $list-keys (param i32 i32 i64 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft" "increment"
    (func $increment (param i32 i32 i32 i64 i32)))

  ;; One request. Fails where Ruby's code ended with an exception.
  (func (export "wasi:cli/run@0.2.6#run") (result i32)
    (local $code i32)
    (; MOUNTS ;)
    (local.set $code (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 16)))
    ;; "Wharf.serve"
    (i64.store (local.get $code) (i64.const 0x65732e6672616857))
    (i32.store offset=8 (local.get $code) (i32.const 0x00657672))
    (i32.ne
      (i32.load offset=4 (call $eval (local.get $code) (i32.const 11)))
      (i32.const 0)))

  ;; Gives the preopened folder $fd its name: libc's table is of the time of the
  ;; snapshot, and has placeholders at the addresses $name.
  (func $mount (param $fd i32) (param $name i32)
    (local $buffer i32) (local $length i32)
    (local.set $buffer (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 256)))
    (if (i32.eqz (call $prestat (local.get $fd) (local.get $buffer)))
      (then
        (local.set $length (i32.load offset=4 (local.get $buffer)))
        ;; LONGEST_MOUNT of component.rs
        (if (i32.le_u (local.get $length) (i32.const 250))
          (then
            (drop (call $prestat-name (local.get $fd) (local.get $buffer) (local.get $length)))
            ;; libc has it without the first slash.
            (local.set $length (i32.sub (local.get $length) (i32.const 1)))
            (memory.copy (local.get $name) (i32.add (local.get $buffer) (i32.const 1)) (local.get $length))
            (i32.store8 (i32.add (local.get $name) (local.get $length)) (i32.const 0)))))))

  ;; The host's lists and strings go to Ruby's heap.
  (func (export "cabi_import_realloc") (param i32 i32 i32 i32) (result i32)
    (call $realloc (local.get 0) (local.get 1) (local.get 2) (local.get 3)))

  (func (export "eval-js: func(code: string) -> variant { success(handle<js-abi-value>), failure(handle<js-abi-value>) }")
    (param $call i32) (param $length i32) (param $result i32)
    (local $answer i32) (local $out i32) (local $a i32) (local $b i32) (local $c i32) (local $bytes i32)
    ;; 0: address and 4: length of the answer, then the answer itself.
    (local.set $answer (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 40)))
    (local.set $out (i32.add (local.get $answer) (i32.const 8)))
    (i32.store (local.get $answer) (local.get $out))
    (i32.store offset=4 (local.get $answer) (i32.const 32))
    (local.set $a (i32.load offset=4 (local.get $call)))
    (local.set $b (i32.load offset=8 (local.get $call)))
    (local.set $c (i32.load offset=12 (local.get $call)))
    (local.set $bytes (i32.add (local.get $call) (i32.const 16)))
    (block $done
      (block $7 (block $6 (block $5 (block $4 (block $3 (block $2 (block $1 (block $0
        (br_table $0 $1 $2 $3 $4 $5 $6 $7 (i32.load (local.get $call))))
        ;; 0, read: a the address, b the length
        (i32.store (local.get $answer) (local.get $a))
        (i32.store offset=4 (local.get $answer) (local.get $b))
        (br $done))
        ;; 1, open: b the length of the store's name
        (call $open (local.get $bytes) (local.get $b) (local.get $out))
        (br $done))
        ;; 2, get: a the bucket, b the length of the key, as below
        (call $get (local.get $a) (local.get $bytes) (local.get $b) (local.get $out))
        (br $done))
        ;; 3, set: c the length of the value after the key
        (call $set (local.get $a) (local.get $bytes) (local.get $b)
          (i32.add (local.get $bytes) (local.get $b)) (local.get $c) (local.get $out))
        (br $done))
        ;; 4, delete
        (call $delete (local.get $a) (local.get $bytes) (local.get $b) (local.get $out))
        (br $done))
        ;; 5, exists
        (call $exists (local.get $a) (local.get $bytes) (local.get $b) (local.get $out))
        (br $done))
        ;; 6, list-keys: b whether there is a cursor, as bytes
        (call $list-keys (local.get $a) (local.get $b) (i64.load align=1 (local.get $bytes)) (local.get $out))
        (br $done))
      ;; 7, increment: the delta after the key
      (call $increment (local.get $a) (local.get $bytes) (local.get $b)
        (i64.load align=1 (i32.add (local.get $bytes) (local.get $b))) (local.get $out)))
    (i32.store8 (local.get $result) (i32.const 0))
    (i32.store offset=4 (local.get $result) (local.get $answer)))

  (func (export "js-value-to-string: func(value: handle<js-abi-value>) -> string")
    (param $answer i32) (param $result i32)
    (local $copy i32) (local $length i32)
    (local.set $length (i32.load offset=4 (local.get $answer)))
    (local.set $copy (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (local.get $length)))
    (memory.copy (local.get $copy) (i32.load (local.get $answer)) (local.get $length))
    (i32.store (local.get $result) (local.get $copy))
    (i32.store offset=4 (local.get $result) (local.get $length)))

  ;; The rest is JavaScript's alone, or a bug of the interpreter.
  (func (export "rb_wasm_throw_prohibit_rewind_exception") (param i32 i32) unreachable)
  (func (export "is-js: func(value: handle<js-abi-value>) -> bool") (param i32) (result i32) unreachable)
  (func (export "instance-of: func(value: handle<js-abi-value>, klass: handle<js-abi-value>) -> bool") (param i32 i32) (result i32) unreachable)
  (func (export "global-this: func() -> handle<js-abi-value>") (result i32) unreachable)
  (func (export "int-to-js-number: func(value: s32) -> handle<js-abi-value>") (param i32) (result i32) unreachable)
  (func (export "float-to-js-number: func(value: float64) -> handle<js-abi-value>") (param f64) (result i32) unreachable)
  (func (export "string-to-js-string: func(value: string) -> handle<js-abi-value>") (param i32 i32) (result i32) unreachable)
  (func (export "bool-to-js-bool: func(value: bool) -> handle<js-abi-value>") (param i32) (result i32) unreachable)
  (func (export "proc-to-js-function: func(value: u32) -> handle<js-abi-value>") (param i32) (result i32) unreachable)
  (func (export "rb-object-to-js-rb-value: func(raw-rb-abi-value: u32) -> handle<js-abi-value>") (param i32) (result i32) unreachable)
  (func (export "js-value-to-integer: func(value: handle<js-abi-value>) -> variant { as-float(float64), bignum(string) }") (param i32 i32) unreachable)
  (func (export "export-js-value-to-host: func(value: handle<js-abi-value>) -> ()") (param i32) unreachable)
  (func (export "import-js-value-from-host: func() -> handle<js-abi-value>") (result i32) unreachable)
  (func (export "js-value-typeof: func(value: handle<js-abi-value>) -> string") (param i32 i32) unreachable)
  (func (export "js-value-equal: func(lhs: handle<js-abi-value>, rhs: handle<js-abi-value>) -> bool") (param i32 i32) (result i32) unreachable)
  (func (export "js-value-strictly-equal: func(lhs: handle<js-abi-value>, rhs: handle<js-abi-value>) -> bool") (param i32 i32) (result i32) unreachable)
  (func (export "reflect-apply: func(target: handle<js-abi-value>, this-argument: handle<js-abi-value>, arguments: list<handle<js-abi-value>>) -> variant { success(handle<js-abi-value>), failure(handle<js-abi-value>) }") (param i32 i32 i32 i32 i32) unreachable)
  (func (export "reflect-get: func(target: handle<js-abi-value>, property-key: string) -> variant { success(handle<js-abi-value>), failure(handle<js-abi-value>) }") (param i32 i32 i32 i32) unreachable)
  (func (export "reflect-set: func(target: handle<js-abi-value>, property-key: string, value: handle<js-abi-value>) -> variant { success(handle<js-abi-value>), failure(handle<js-abi-value>) }") (param i32 i32 i32 i32 i32) unreachable))
