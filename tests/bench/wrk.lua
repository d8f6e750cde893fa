-- Sends the contents of the files that are named as arguments, in turn, and prints what came of it as JSON.
-- Arguments that look like `Name: value` are headers.
local requests, turn = {}, 0

function init(arguments)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  local files = {}
  for _, word in ipairs(arguments) do
    local name, value = word:match("^([%w-]+): (.*)$")
    if name then wrk.headers[name] = value else files[#files + 1] = word end
  end
  for _, path in ipairs(files) do
    local file = assert(io.open(path, "rb"))
    wrk.body = file:read("*a")
    file:close()
    requests[#requests + 1] = wrk.format()
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('JSON{"requests":%d,"bytes":%d,"microseconds":%d,"errors":%d,"p99":%d}\n', summary.requests,
    summary.bytes, summary.duration, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(99)))
end
