-- Posts orders that differ in deal, user and quantity, each with an idempotency
-- key of its own, to the path of the incident's load test.
--   wrk … -s orders.lua http://<address>/api/v1/order -- <deals> <run>
-- <deals>  how many deals d-0 … take part
-- <run>    begins the keys, so that no two runs share one

local started = 0

function setup(thread)
  thread:set("id", started)
  started = started + 1
end

function init(args)
  deals, run, n = tonumber(args[1]), args[2], 0
  headers = { ["Content-Type"] = "application/json" }
end

function request()
  n = n + 1
  headers["Idempotency-Key"] = run .. "-" .. id .. "-" .. n
  return wrk.format("POST", nil, headers,
    '{"deal_id":"d-' .. n % deals .. '","user_id":"u-' .. n * 7919 % 100000 .. '","quantity":' .. 1 + n % 3 .. "}")
end

-- One line for the program that started wrk: answers, µs, failures, P50 and P99
-- in µs. An answer that took longer than wrk's timeout is late, and no failure.
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("result %d %d %d %d %d\n",
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status,
    latency:percentile(50), latency:percentile(99)))
end
