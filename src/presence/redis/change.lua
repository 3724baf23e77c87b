-- What has changed among a node's own sessions. Who repeats a batch changes nothing.
-- ARGV: 8 the node's mark before, or nothing, 9 its mark after, then for each change a kind, a session and a seat. Kinds:
--       J came, j is there and need not be told, L left, l left and is told though nobody knows of it.
local buried = redis.call('GET', grave)
if buried and tonumber(buried) >= incarnation then
  return { 'over', 0, 0 }
end
local known = redis.call('HGET', counters, 'n:' .. node) or ''
if known == ARGV[9] then
  return done('ok')
end
if known ~= ARGV[8] then
  return { 'lost', 0, 0 }
end
redis.call('HSET', counters, 'n:' .. node, ARGV[9])
if buried then
  redis.call('DEL', grave)
end
for place = 10, #ARGV, 3 do
  local kind, session, seat = ARGV[place], ARGV[place + 1], ARGV[place + 2]
  local former = redis.call('HGET', sessions, session)
  if kind == 'J' or kind == 'j' then
    if not former then
      insert(session, seat, kind == 'J')
    elseif user_of(former) == user_of(seat) then
      redis.call('HSET', sessions, session, seat)
    else
      remove(session, former)
      insert(session, seat, true)
    end
  elseif former then
    remove(session, former)
  elseif kind == 'l' then
    local user = user_of(seat)
    tell('L', session, user and tonumber(redis.call('HGET', users, user) or 0) or 0, seat)
  end
end
return done('ok')
