-- What is known of the fences of a scope, as a text that differs whenever a write has passed one of them, and whether
-- nothing speaks against storing what is fetched now. A fence that no write has touched has no field; all fields are
-- lost together or not at all, since they are one key.
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function stamp(key, first)
  local fields = {}
  for i = first, #ARGV do fields[#fields + 1] = ARGV[i] end
  local v = redis.call('HMGET', key, 'b', 'e', 'q', unpack(fields))
  if not v[1] then return '', 0 end
  local at, quiet = now(), 1
  if tonumber(v[3]) > at then quiet = 0 end
  local parts = { v[1] .. '.' .. v[2] }
  for i, field in ipairs(fields) do
    local known = v[i + 3]
    if known then
      local token, settled, marks = string.match(known, '^(%x+) (%d+)(.*)$')
      parts[#parts + 1] = field .. ':' .. token
      if tonumber(settled) > at then quiet = 0 end
      for untold in string.gmatch(marks, '=(%d+)') do
        if tonumber(untold) > at then quiet = 0 end
      end
    else
      parts[#parts + 1] = field
    end
  end
  return table.concat(parts, ' '), quiet
end

local VERSION = 'P2'
