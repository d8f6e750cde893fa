-- Everything stored is unusable from now on: a new epoch.
-- KEYS: fences. ARGV: birth, lifetime (ms), channel, an epoch, how long nothing may be stored (ms).
if redis.call('HGET', KEYS[1], 'b') ~= ARGV[1] then
  return redis.error_reply('UNJOINED the fences are others')
end
-- First: a script that has written something may go on where memory is full.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local hold = math.max(tonumber(redis.call('HGET', KEYS[1], 'q')), after(now(), ARGV[5]))
redis.call('HSET', KEYS[1], 'e', ARGV[4], 'q', string.format('%.0f', hold))
redis.call('PUBLISH', ARGV[3], ARGV[1] .. ' *')
return 1
