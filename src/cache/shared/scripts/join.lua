-- Takes part: takes over the fences that are there, or makes them.
-- KEYS: fences. ARGV: 1 a birth, 2 an epoch, 3 a secret to lie here, 4 the mark of a secret that does not ('' for the
-- former), 5 the server's name ('' if it tells none), 6 how long nothing may be stored because of what this instance
-- knows (ms), 7 the birth it knows, 8 the server it knows, 9 how long where Redis may have forgotten writes of others
-- (ms), 10 lifetime (ms), 11 channel, 12 how long where others with another secret may write (ms), 13 its own channel.
-- Answers: birth, secret.
local key, at = KEYS[1], now()
-- A script that has written something may go on where memory is full.
redis.call('PEXPIRE', key, ARGV[10])
local v = redis.call('HMGET', key, 'b', 'k', 'p', 'r', 'q')
local foreign = v[1] and ((ARGV[4] ~= '' and v[3] ~= ARGV[4]) or (ARGV[4] == '' and not v[2]))
if not v[1] or foreign then
  redis.call('DEL', key)
  local hold = math.max(ARGV[6], ARGV[9], foreign and ARGV[12] or 0)
  redis.call('HSET', key, 'b', ARGV[1], 'e', ARGV[2], 'r', ARGV[5], 'q', string.format('%.0f', after(at, hold)))
  if ARGV[4] == '' then redis.call('HSET', key, 'k', ARGV[3]) else redis.call('HSET', key, 'p', ARGV[4]) end
  redis.call('PUBLISH', ARGV[11], ARGV[1] .. ' *')
  v = { ARGV[1], ARGV[4] == '' and ARGV[3] }
else
  -- Another server than the one that the last epoch was begun on may have forgotten the last writes. One that tells no
  -- name may be another each time.
  local other = v[4] ~= ARGV[5] or ARGV[5] == ''
  local lost = (ARGV[7] ~= '' and ARGV[7] ~= v[1]) or (ARGV[8] ~= '' and ARGV[8] ~= ARGV[5])
  if other or lost then
    -- Whoever has noticed another server before has held for the others.
    local hold = math.max(tonumber(v[5]), after(at, math.max(ARGV[6], other and ARGV[9] or 0)))
    redis.call('HSET', key, 'e', ARGV[2], 'r', ARGV[5], 'q', string.format('%.0f', hold))
    redis.call('PUBLISH', ARGV[11], v[1] .. ' *')
  end
end
redis.call('PEXPIRE', key, ARGV[10])
-- Whoever may not publish is to know at once.
redis.call('PUBLISH', ARGV[13], '-')
return { v[1], v[2] }
