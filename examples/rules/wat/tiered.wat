;; tiered takes off a percentage that grows with the quantity.
;;
;; Memory: the host's buffer from 8192 on, the output at 64, the tiers at 1024. Numbers
;; behind "offset=" are the fields of ABI.md. Every evaluation starts with the output
;; as it stands here, which is "nothing".
(module
  (memory (export "memory") 1 1)

  ;; From the highest quantity down: from (i32), basis points (i32), label (14 bytes),
  ;; reason (6 bytes), 4 bytes unused: 32 bytes a tier. A tier from 0 ends the list.
  (data (i32.const 1024)
    "\05\00\00\00" "\d0\07\00\00" "20% off from 5" "tier_5" "\00\00\00\00"
    "\03\00\00\00" "\dc\05\00\00" "15% off from 3" "tier_3" "\00\00\00\00"
    "\01\00\00\00" "\e8\03\00\00" "10% off from 1" "tier_1" "\00\00\00\00")

  (func (export "doorbuster_abi_v1"))

  (func (export "rule_buffer") (param $size i32) (result i32)
    (i32.const 8192))

  ;; amount × points / 10,000, rounded down. The ten thousands of the amount and the
  ;; rest are taken apart, so that nothing overflows.
  (func $share_down (param $amount i64) (param $points i64) (result i64)
    (i64.add
      (i64.mul (i64.div_u (local.get $amount) (i64.const 10000)) (local.get $points))
      (i64.div_u
        (i64.mul (i64.rem_u (local.get $amount) (i64.const 10000)) (local.get $points))
        (i64.const 10000))))

  (func (export "rule_evaluate") (param $size i32) (result i64)
    (local $tier i32)
    (local.set $tier (i32.const 1024))
    (block $nothing
      (loop $next
        (br_if $nothing (i32.eqz (i32.load (local.get $tier))))
        (if (i32.lt_u (i32.load offset=40 (i32.const 8192)) (i32.load (local.get $tier))) ;; quantity
          (then
            (local.set $tier (i32.add (local.get $tier) (i32.const 32)))
            (br $next))))
      (i32.store16 (i32.const 64) (i32.const 1)) ;; outcome: discount
      (i64.store offset=8 (i32.const 64)
        (call $share_down
          (i64.sub
            (i64.load offset=24 (i32.const 8192))  ;; subtotal
            (i64.load offset=32 (i32.const 8192))) ;; discount_so_far
          (i64.load32_u offset=4 (local.get $tier))))
      (i32.store offset=16 (i32.const 64) (i32.add (local.get $tier) (i32.const 8)))  ;; label
      (i32.store offset=20 (i32.const 64) (i32.const 14))
      (i32.store offset=24 (i32.const 64) (i32.add (local.get $tier) (i32.const 22))) ;; reason
      (i32.store offset=28 (i32.const 64) (i32.const 6)))
    (i64.const 0x4000000020)) ;; 32 bytes at 64
)
