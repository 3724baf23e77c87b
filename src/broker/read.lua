-- Reads a stretch of a topic's history together with where the topic stands.
-- KEYS: where the topic stands, its history.
-- ARGV: 1 epoch for a topic that has none, 2 how long the topic is known at least, in milliseconds,
--       3 epoch and 4 offset after which to read, or '' for the last ones, 5 how many. The one at the offset comes too.
local state = redis.call('HMGET', KEYS[1], 'e', 's', 'o')
if not state[1] then
  state[1] = ARGV[1]
  redis.call('HSET', KEYS[1], 'e', ARGV[1])
  redis.call('DEL', KEYS[2])
end
-- Whoever has read a position must find it again.
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
local entries = {}
if ARGV[5] ~= '0' then
  if ARGV[3] == '' then
    entries = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', ARGV[5])
  elseif ARGV[3] == state[1] then
    entries = redis.call('XRANGE', KEYS[2], ARGV[4] .. '-0', '+', 'COUNT', ARGV[5] + 1)
  else
    entries = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', ARGV[5])
  end
end
local publications = {}
for place, entry in ipairs(entries) do
  publications[place] = entry[2][2]
end
return { state[1], state[2] or '0', state[3] or '0', publications }
