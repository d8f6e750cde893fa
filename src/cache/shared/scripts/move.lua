-- A write begins or ends: moves fences, marks or unmarks them, and tells everybody.
-- KEYS: fences. ARGV: birth, lifetime of the fences (ms), channel, token, the write's name, how long it may be under way
-- at most (ms; 0: it is over), how long the store settles (ms), fences.
if redis.call('HGET', KEYS[1], 'b') ~= ARGV[1] then
  return redis.error_reply('UNJOINED the fences are others')
end
-- First: a script that has written something may go on where memory is full, and the fences do not grow for long.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local at = now()
local changed = {}
for i = 8, #ARGV do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  local settled, marks = string.match(known or '', '^%x+ (%d+)(.*)$')
  local kept = {}
  for name, untold in string.gmatch(marks or '', '(%x+)=(%d+)') do
    if name ~= ARGV[5] and tonumber(untold) > at then kept[#kept + 1] = ' ' .. name .. '=' .. untold end
  end
  if ARGV[6] ~= '0' then kept[#kept + 1] = string.format(' %s=%.0f', ARGV[5], after(at, ARGV[6])) end
  settled = math.max(tonumber(settled or 0), ARGV[7] == '0' and 0 or after(at, ARGV[7]))
  changed[#changed + 1] = ARGV[i]
  changed[#changed + 1] = string.format('%s %.0f%s', ARGV[4], settled, table.concat(kept))
end
redis.call('HSET', KEYS[1], unpack(changed))
redis.call('PUBLISH', ARGV[3], ARGV[1] .. ' ' .. table.concat(ARGV, ' ', 8))
return 1
