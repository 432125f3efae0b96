-- Posts orders that differ in deal, user, quantity and code, each with an
-- idempotency key of its own.
--   wrk … -s orders.lua http://<address>/api/v1/orders -- <deals> <run>
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
  local codes = n % 10 == 0 and ',"codes":["VIP"]' or ""
  return wrk.format("POST", nil, headers,
    '{"deal_id":"d-' .. n % deals .. '","user_id":"u-' .. n * 7919 % 100000 .. '","quantity":' .. 1 + n % 3 .. codes .. "}")
end

-- One line for the program that started wrk: answers, µs, failures, answers that
-- came after wrk's timeout, then the quantiles of latency in µs.
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("result %d %d %d %d %d %d %d\n",
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status, e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
