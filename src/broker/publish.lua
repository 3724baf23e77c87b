-- Appends a publication to its topic's history and publishes it, in one step.
-- KEYS: where the topic stands, its history, and the idempotency key where there is one.
-- ARGV: 1 epoch for a topic that has none, 2 publications kept, 3 their ttl, 4 the topic's own ttl, 5 channel,
--       6 PUBLISH or SPUBLISH, 7 the publication, 8 ttl of the idempotency key. Times in milliseconds.
-- Numbers are handed on as texts: a Lua number written by `..` has 14 digits.
if KEYS[3] and not redis.call('SET', KEYS[3], '', 'NX', 'PX', ARGV[8]) then
  return false
end
local epoch = redis.call('HGET', KEYS[1], 'e')
if not epoch then
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'e', epoch)
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('DEL', KEYS[2])
end
local sequence = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 's', 1))
local head = epoch .. ' ' .. sequence .. ' '
if ARGV[2] == '0' then
  head = head .. '- '
else
  local offset = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'o', 1))
  head = head .. offset .. ' '
  redis.call('XADD', KEYS[2], 'MAXLEN', '=', ARGV[2], offset .. '-0', 'p', head .. ARGV[7])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
-- Never sooner than for the publications that are kept already.
redis.call('PEXPIRE', KEYS[1], ARGV[4], 'GT')
redis.call(ARGV[6], ARGV[5], head .. ARGV[7])
return head
