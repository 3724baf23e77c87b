-- Members of a topic, from all its nodes. KEYS: 1 counters. ARGV: 1 how many at most.
local found = {}
local left = tonumber(ARGV[1])
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if left > 0 and string.sub(field, 1, 2) == 'n:' then
    local seats = redis.call('HRANDFIELD', KEYS[1] .. ':' .. string.sub(field, 3), left, 'WITHVALUES')
    for place = 1, #seats do
      found[#found + 1] = seats[place]
    end
    left = left - #seats / 2
  end
end
return found
