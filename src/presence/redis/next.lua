-- The first change that waits to be told, and the end of the one before it.
-- KEYS: 1 changes, 2 the token of who tells them. ARGV: 1 the caller's token, 2 its time to live, 3 the change that it has
-- told, or nothing.
local teller = redis.call('GET', KEYS[2])
if teller and teller ~= ARGV[1] then
  return false
end
local first = redis.call('LINDEX', KEYS[1], 0)
-- While nobody had the token somebody else may have told it too.
if first and first == ARGV[3] then
  redis.call('LPOP', KEYS[1])
  first = redis.call('LINDEX', KEYS[1], 0)
end
if first then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
else
  redis.call('DEL', KEYS[2])
end
return first
