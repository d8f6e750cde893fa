-- The key under which conversations are named here: the one that lies here, or this.
-- KEYS: the key's place. ARGV: 1 a key, 2 its lifetime (ms). Answers: the key.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('GET', KEYS[1])
