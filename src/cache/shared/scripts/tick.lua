-- Sends a message to the one who asks, behind all that was told before.
-- KEYS: fences. ARGV: birth, lifetime (ms), its channel, the message.
if redis.call('HGET', KEYS[1], 'b') ~= ARGV[1] then
  return redis.error_reply('UNJOINED the fences are others')
end
-- A write: refused where there is only a follower.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
