-- A node says that it lives, and hears who does not. By the clock of Redis, so that those of nodes may differ.
-- KEYS: 1 leases. ARGV: 1 `NODE INCARNATION`, 2 how long one may be silent, in milliseconds, 3 whether it is its first word.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local said = redis.call('ZSCORE', KEYS[1], ARGV[1])
local word = 'ok'
if said and now - said > tonumber(ARGV[2]) or not said and ARGV[3] ~= '1' then
  -- Others may have buried it, or be at it: it comes back as another.
  word = 'over'
else
  redis.call('ZADD', KEYS[1], now, ARGV[1])
end
return { word, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2] - 1, 'LIMIT', 0, 16) }
