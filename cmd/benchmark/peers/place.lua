-- Places one order, or finds that its key has placed it before.
--   KEYS  the deal (a hash), what each user has bought of it (a hash), its orders
--         by user and key (a hash)
--   ARGV  user, idempotency key, quantity, Unix ms
-- The order's record, "seq quantity available total at", is also what a repeated
-- key is answered with, so one field holds both.
local field = ARGV[1] .. ' ' .. ARGV[2]
local placed = redis.call('HGET', KEYS[3], field)
if placed then
  return placed
end
local deal = redis.call('HMGET', KEYS[1], 'stock', 'limit', 'price')
if not deal[1] then
  return redis.error_reply('deal_not_found')
end
local quantity, stock, limit = tonumber(ARGV[3]), tonumber(deal[1]), tonumber(deal[2])
if stock < quantity then
  return redis.error_reply('sold_out')
end
if limit > 0 and tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0) + quantity > limit then
  return redis.error_reply('user_limit_exceeded')
end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call('HINCRBY', KEYS[1], 'stock', -quantity)
redis.call('HINCRBY', KEYS[2], ARGV[1], quantity)
local record = string.format('%d %d %d %d %s', seq, quantity, stock - quantity, quantity * tonumber(deal[3]), ARGV[4])
redis.call('HSET', KEYS[3], field, record)
return record
