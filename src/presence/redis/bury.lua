-- Takes the sessions of a dead node from a topic, some at a time, unless it has come back as another incarnation.
-- ARGV: 8 how many at a time, 9 how long it is remembered. The first of the answer: how many may be left.
local left = 0
local known = redis.call('HGET', counters, 'n:' .. node)
-- What it was telling is told by somebody else.
local token = redis.call('GET', teller)
if token and string.sub(token, 1, #node) == node and (not known or tonumber(string.match(known, '^%d+')) <= incarnation) then
  redis.call('DEL', teller)
end
if known and tonumber(string.match(known, '^%d+')) <= incarnation then
  redis.call('SET', grave, ARGV[2], 'PX', ARGV[9])
  local seats = redis.call('HRANDFIELD', sessions, ARGV[8], 'WITHVALUES')
  for place = 1, #seats, 2 do
    remove(seats[place], seats[place + 1])
  end
  left = redis.call('HLEN', sessions)
  if left == 0 then
    redis.call('HDEL', counters, 'n:' .. node)
  end
end
return done(left)
