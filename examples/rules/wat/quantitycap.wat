;; quantitycap lets each customer have no more than 5 units, over all their orders of
;; the deal.
;;
;; Memory: the host's buffer from 8192 on, the output at 64, the texts at 1024. Numbers
;; behind "offset=" are the fields of ABI.md. Every evaluation starts with the output
;; as it stands here, which is "nothing".
(module
  (memory (export "memory") 1 1)

  (data (i32.const 1024) "At most 5 for each customerquantity_cap")

  (func (export "doorbuster_abi_v1"))

  (func (export "rule_buffer") (param $size i32) (result i32)
    (i32.const 8192))

  (func (export "rule_evaluate") (param $size i32) (result i64)
    ;; user_quantity + quantity takes more than 32 bits.
    (if (i64.gt_u
          (i64.add
            (i64.load32_u offset=44 (i32.const 8192))
            (i64.load32_u offset=40 (i32.const 8192)))
          (i64.const 5))
      (then
        (i32.store16 (i32.const 64) (i32.const 2))                   ;; outcome: reject
        (i32.store offset=16 (i32.const 64) (i32.const 1024))        ;; label
        (i32.store offset=20 (i32.const 64) (i32.const 27))
        (i32.store offset=24 (i32.const 64) (i32.const 1051))        ;; reason
        (i32.store offset=28 (i32.const 64) (i32.const 12))))
    (i64.const 0x4000000020))                                        ;; 32 bytes at 64
)
