local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- So much later, if at all, but at the turn of a second.
local function after(at, span)
  if tonumber(span) == 0 then return at end
  return math.ceil((at + span) / 1000) * 1000
end

-- What is known of the fences of a scope, as a text that differs whenever a write has passed one of them, and 1 if
-- nothing speaks against storing what is fetched now, else the second that it is, below 0: of several writes only the
-- last one's time is known, and searches share a call only if none ends between them. A fence that no write has touched
-- has no field; all fields are lost together or not at all, since they are one key.
local function stamp(key, first)
  local fields = {}
  for i = first, #ARGV do fields[#fields + 1] = ARGV[i] end
  local v = redis.call('HMGET', key, 'b', 'e', 'q', unpack(fields))
  if not v[1] then return '', 0 end
  local at, quiet = now(), true
  if tonumber(v[3]) > at then quiet = false end
  local parts = { v[1] .. '.' .. v[2] }
  for i, field in ipairs(fields) do
    local known = v[i + 3]
    if known then
      local token, settled, marks = string.match(known, '^(%x+) (%d+)(.*)$')
      parts[#parts + 1] = field .. ':' .. token
      if tonumber(settled) > at then quiet = false end
      for untold in string.gmatch(marks, '=(%d+)') do
        if tonumber(untold) > at then quiet = false end
      end
    else
      parts[#parts + 1] = field
    end
  end
  return table.concat(parts, ' '), quiet and 1 or -math.floor(at / 1000)
end

local VERSION = 'P2'
