;; Serves the module's imports `canonical_abi`: what a handle of a Ruby value
;; stands for. Each is the value's address itself, and none is ever dropped:
;; an instance ends with its request.
(module
  (func (export "resource_new_rb-abi-value") (param i32) (result i32) (local.get 0))
  (func (export "resource_get_rb-abi-value") (param i32) (result i32) (local.get 0))
  (func (export "resource_drop_js-abi-value") (param i32)))
