-- What the scripts on a topic's members share. All keys stand in the topic's slot.
-- KEYS: 1 counters, and for each node its mark: `INCARNATION NUMBER` of the last batch that was done for it,
--       2 users and how many sessions each has, 3 changes that wait to be told, 4 the token of who tells them,
--       5 the incarnation in which this node was taken for dead here, kept for a while, 6 the node's sessions, each with
--       its seat.
-- ARGV: 1 node, 2 its incarnation, 3 whether changes are told, 4 how many may wait, 5 a token for who is to tell them,
--       6 its time to live, 7 time to live of a topic without members. Times in milliseconds.
-- A seat is the length of the user's name (- without a user), a space, the name, and the info.
local counters, users, changes, teller, grave, sessions = unpack(KEYS)
local node, incarnation = ARGV[1], tonumber(ARGV[2])
local dropped = 0

local function user_of(seat)
  local length = string.match(seat, '^%d+')
  if not length then
    return false
  end
  return string.sub(seat, #length + 2, #length + 1 + length)
end

-- How many sessions the user has then.
local function count(user, by)
  if not user then
    redis.call('HINCRBY', counters, 'anonymous', by)
    return by > 0 and 1 or 0
  end
  local left = redis.call('HINCRBY', users, user, by)
  if left <= 0 then
    redis.call('HDEL', users, user)
  end
  return left
end

local function tell(kind, session, left, seat)
  if ARGV[3] ~= '1' then
    return
  end
  if redis.call('LLEN', changes) >= tonumber(ARGV[4]) then
    dropped = dropped + 1
  else
    redis.call('RPUSH', changes, kind .. ' ' .. session .. ' ' .. left .. ' ' .. seat)
  end
end

local function insert(session, seat, told)
  redis.call('HSET', sessions, session, seat)
  redis.call('HINCRBY', counters, 'sessions', 1)
  local left = count(user_of(seat), 1)
  if told then
    tell('J', session, left, seat)
  end
end

local function remove(session, seat)
  redis.call('HDEL', sessions, session)
  redis.call('HINCRBY', counters, 'sessions', -1)
  tell('L', session, count(user_of(seat), -1), seat)
end

-- Whether the caller is to tell the changes that wait; and how many did not fit.
local function done(word)
  if tonumber(redis.call('HGET', counters, 'sessions') or 0) > 0 then
    redis.call('PERSIST', counters)
  else
    redis.call('PEXPIRE', counters, ARGV[7])
  end
  local tells = 0
  if redis.call('LLEN', changes) > 0 and redis.call('SET', teller, ARGV[5], 'NX', 'PX', ARGV[6]) then
    tells = 1
  end
  return { word, tells, dropped }
end
