-- Sends the contents of the files that are named as arguments, in turn, and prints what came of it as JSON.
-- Arguments that look like `Name: value` are headers. After `of=COUNT` the seven `#` in the one content are a number below
-- it, drawn anew for each request.
local requests, turn = {}, 0
local count, before, after

function init(arguments)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  local files = {}
  for _, word in ipairs(arguments) do
    local name, value = word:match("^([%w-]+): (.*)$")
    local of = word:match("^of=(%d+)$")
    if name then wrk.headers[name] = value elseif of then count = tonumber(of) else files[#files + 1] = word end
  end
  for _, path in ipairs(files) do
    local file = assert(io.open(path, "rb"))
    wrk.body = file:read("*a")
    file:close()
    requests[#requests + 1] = wrk.format()
  end
  if count then
    local first, last = requests[1]:find("#######", 1, true)
    before, after = requests[1]:sub(1, first - 1), requests[1]:sub(last + 1)
    math.randomseed(os.time())
  end
end

function request()
  if count then return before .. string.format("%07d", math.random(0, count - 1)) .. after end
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('JSON{"requests":%d,"bytes":%d,"microseconds":%d,"errors":%d,"p99":%d}\n', summary.requests,
    summary.bytes, summary.duration, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(99)))
end
