-- KEYS: fences, entry. ARGV: the stamp under which it was fetched, how long it may be used (ms), the entry, the fences
-- of the scope. Answers 1 if it was stored.
local known, quiet = stamp(KEYS[1], 4)
if known ~= ARGV[1] or quiet ~= 1 then return 0 end
redis.call('SET', KEYS[2], VERSION .. '\n' .. known .. '\n' .. ARGV[3], 'PX', ARGV[2])
return 1
