-- KEYS: fences, entry. ARGV: birth, lifetime of the fences (ms), '1' to look at the entry too, the fences of the scope.
-- Answers: stamp, 1 if what is fetched now may be stored (else a number below 0), the entry if it was stored under this
-- very stamp, how long it may still be used (ms).
if redis.call('HGET', KEYS[1], 'b') ~= ARGV[1] then
  return redis.error_reply('UNJOINED the fences are others')
end
-- A write, so that an instance that only follows another refuses: what it knows may be old.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local known, quiet = stamp(KEYS[1], 4)
if ARGV[3] == '1' then
  local entry = redis.call('GET', KEYS[2])
  local head = VERSION .. '\n' .. known .. '\n'
  if entry and string.sub(entry, 1, #head) == head then
    return { known, quiet, string.sub(entry, #head + 1), redis.call('PTTL', KEYS[2]) }
  end
end
return { known, quiet }
