;; firstorder takes off 15 % of a user's first order in the deal, at most 5,000 minor
;; units.
;;
;; Memory: the host's buffer from 8192 on, the output at 64, the texts at 1024. Numbers
;; behind "offset=" are the fields of ABI.md. Every evaluation starts with the output
;; as it stands here, which is "nothing".
(module
  (memory (export "memory") 1 1)

  (data (i32.const 1024) "15% off your first orderfirst_order")

  (func (export "doorbuster_abi_v1"))

  (func (export "rule_buffer") (param $size i32) (result i32)
    (i32.const 8192))

  (func (export "rule_evaluate") (param $size i32) (result i64)
    (local $payable i64)
    (local $discount i64)
    (if (i32.and (i32.load16_u offset=6 (i32.const 8192)) (i32.const 1)) ;; flags: first order
      (then
        (local.set $payable
          (i64.sub
            (i64.load offset=24 (i32.const 8192))   ;; subtotal
            (i64.load offset=32 (i32.const 8192)))) ;; discount_so_far
        ;; The ten thousands and the rest are taken apart, so that nothing overflows.
        (local.set $discount
          (i64.add
            (i64.mul (i64.div_u (local.get $payable) (i64.const 10000)) (i64.const 1500))
            (i64.div_u
              (i64.mul (i64.rem_u (local.get $payable) (i64.const 10000)) (i64.const 1500))
              (i64.const 10000))))
        (i32.store16 (i32.const 64) (i32.const 1)) ;; outcome: discount
        (i64.store offset=8 (i32.const 64)
          (select
            (local.get $discount)
            (i64.const 5000)
            (i64.lt_u (local.get $discount) (i64.const 5000))))
        (i32.store offset=16 (i32.const 64) (i32.const 1024)) ;; label
        (i32.store offset=20 (i32.const 64) (i32.const 24))
        (i32.store offset=24 (i32.const 64) (i32.const 1048)) ;; reason
        (i32.store offset=28 (i32.const 64) (i32.const 11))))
    (i64.const 0x4000000020)) ;; 32 bytes at 64
)
