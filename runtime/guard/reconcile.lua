-- Sets what is known of a deal to what the journal says.
-- KEYS: the deal's hash. ARGV: the seconds of claim.lua, epoch, newest event, units left.
-- Answers 'new', 'same' or 'changed'.
local known = redis.call('HMGET', KEYS[1], 'e', 's', 'l', 'a')
redis.call('HSET', KEYS[1], 'e', ARGV[2], 's', ARGV[3], 'l', ARGV[3], 'a', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[1])
if not (known[1] and known[2] and known[3] and known[4]) then return 'new' end
local same = known[1] == ARGV[2] and known[2] == ARGV[3] and known[4] == ARGV[4]
return same and 'same' or 'changed'
