-- Claims a write for each deal before it is appended to the journal.
--
-- KEYS: a hash for each deal: e, the newest owner's epoch; s, the newest event that was
--   claimed; l, the newest that is known to be on disk; a, the units that are left.
-- ARGV: the seconds after which a deal that nobody writes to is forgotten, then for each
--   deal: epoch, seq of the first event, number of events, units taken (less than
--   nothing: given back), units left by the owner's own count, newest event on disk.
--
-- Answers a letter for each:
--   + it follows what is known    n nothing is known that it could be compared to
--   e a newer owner has written   s these events were claimed before
--   l the owner lacks events that were on disk
--   z more is taken than is left
local letters, refused = {}, {}
for i, key in ipairs(KEYS) do
  local at = 6 * i - 4
  local epoch, seq = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local last = seq + tonumber(ARGV[at + 2]) - 1
  local taken, left, landed = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])

  local known = redis.call('HMGET', key, 'e', 's', 'l', 'a')
  local e, s, l, a = tonumber(known[1]), tonumber(known[2]), tonumber(known[3]), tonumber(known[4])
  local letter = 'n'
  local whole = e and s and l and a
  if refused[key .. ' ' .. epoch] then
    letter = refused[key .. ' ' .. epoch] -- what follows a refused write has no ground
  elseif whole and epoch < e then
    letter = 'e'
  elseif whole and epoch > e then
    -- What was claimed and is not known to be on disk may never have got there.
    if seq <= l then letter = 'l' end
  elseif whole and seq <= s then
    letter = 's'
  elseif whole and seq == s + 1 then
    letter = '+'
    left = a - taken
    if taken > 0 and left < 0 then letter = 'z' end
  end

  letters[i] = letter
  if letter == '+' or letter == 'n' then
    redis.call('HSET', key, 'e', ARGV[at], 's', last, 'l', math.max(l or 0, landed), 'a', left)
    redis.call('EXPIRE', key, ARGV[1])
  else
    refused[key .. ' ' .. epoch] = letter
  end
end
return table.concat(letters)
