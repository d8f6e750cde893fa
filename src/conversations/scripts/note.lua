-- Adds a request to what is known of its conversation.
-- KEYS: 1 the identifier, 2 where the key lies that names it. ARGV: 1 whose it is, 2 when it is over (ms), 3 the key's
-- lifetime (ms), 4 the key, if it lies here, 5 how many conversations an identifier may have, 6 what it is like ('' as
-- before), 7 requests, 8 to 10 forwarded (messages, bytes, tokens), 11 to 13 left out.
if ARGV[4] ~= '' then
  -- Another key may lie there: it was lost, and somebody has brought one.
  if redis.call('GET', KEYS[2]) ~= ARGV[4] then return redis.error_reply('UNJOINED the key is another') end
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
local key, whose = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local numbers, like = { 0, 0, 0, 0, 0, 0, 0 }, ''

local function split(value)
  local head, rest = string.match(value, '^([^\n]*)\n(.*)$')
  local all = {}
  for number in string.gmatch(head or '', '%S+') do all[#all + 1] = tonumber(number) end
  return all, rest
end

local known = redis.call('HGET', key, whose)
if known then
  local all, rest = split(known)
  if #all == 9 and all[1] + all[2] > now then
    like = rest
    for i = 1, 7 do numbers[i] = all[i + 2] end
  end
elseif redis.call('HLEN', key) >= tonumber(ARGV[5]) then
  -- The one that was silent longest makes room.
  local oldest, since
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local at = split(fields[i + 1])[1] or 0
    if not since or at < since then oldest, since = fields[i], at end
  end
  redis.call('HDEL', key, oldest)
end

local text = string.format('%.0f %s', now, ARGV[2])
for i = 1, 7 do text = text .. string.format(' %.0f', numbers[i] + ARGV[i + 6]) end
if ARGV[6] ~= '' then like = ARGV[6] end
redis.call('HSET', key, whose, text .. '\n' .. like)
-- As long as the one of them that lasts longest.
if redis.call('PTTL', key) < tonumber(ARGV[2]) then redis.call('PEXPIRE', key, ARGV[2]) end
return redis.status_reply('OK')
