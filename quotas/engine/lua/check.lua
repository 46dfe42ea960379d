-- include: clock.lua
-- include: cells.lua
-- read-only: dry
--
-- Hold one request against all of its limits: either every limit is charged, or none is.
--
-- KEYS  1..n       counters
--       n+1..2n    indexes of recent subjects
--       2n+1       the reservation to write            (flag 4)
--       next       the idempotency token's record      (flag 8)
-- ARGV  1          now in microseconds, or '' for the server's own time
--       2          '<BBdd' n, flags, life of the reservation in ms, length of an index; then n specs (cells.lua)
--       3          id of the reservation, and of the slots of concurrency limits
--       4          what the token stands for: a digest of the request
--       5..4+n     index members: how a subject is listed
-- Flags: 1 dry run (decide only), 2 bypass (never deny; charge what fits), 4 reserve, 8 token.
--
-- Returns one string: '<Bd' status, now; then per limit '<Bi8i8i8i8' bits (1 allowed, 2 impossible), used, remaining,
-- retry, reset. Status: 0 denied, 1 allowed, 2 calendar boundaries don't fit the server's time (nothing was done),
-- 3 the token was given with another request. Where a token was answered before: {that answer, its counters' keys}.
-- A denied check writes nothing. A shadow limit never denies; above its limit it is not charged.
--
-- Example, one fixed window of 10 per second with cost 1, no reservation, no token:
--   FCALL sluice_check_<digest> 2 {sl}:l:7:0:fw:requests:h {sl}:i:7:0:fw:requests '' <head><spec> '' '' member
--   -> 1, now; bits 1, used 1, remaining 9, retry 0, reset 412345

-- at each call:

local now = clock(ARGV[1])
local n, flags, life, bound, at = struct.unpack('<BBdd', ARGV[2])
local dry, bypass = flags % 2 >= 1, flags % 4 >= 2
local reserve, token = flags % 8 >= 4, flags >= 8
local token_key = token and KEYS[2 * n + (reserve and 2 or 1)]

if token then
  local known = redis.call('GET', token_key)
  if known then
    local body, keys, answer = unpack(cmsgpack.unpack(known))
    if body ~= ARGV[4] then return struct.pack('<Bd', 3, now) end
    return {answer, keys}
  end
end

local specs, states = {}, {}
local status = 1
local values = redis.call('MGET', unpack(KEYS, 1, n))
for i = 1, n do
  local spec
  spec, at = spec_unpack(ARGV[2], at)
  local st = cell_read(KEYS[i], spec, now, values[i])
  if st.stale then return struct.pack('<Bd', 2, now) end
  cell_decide(st, spec, now, spec.cost)
  if not st.allowed and spec.shadow == 0 and not bypass then status = 0 end
  specs[i], states[i] = spec, st
end

if status == 1 and not dry then
  local record = {}
  for i = 1, n do
    local spec, st = specs[i], states[i]
    local cost = spec.cost
    if st.allowed and cost > 0 then
      local tag1, tag2 = cell_write(KEYS[i], st, spec, now, cost, ARGV[3])
      if st.fresh then
        local index = KEYS[n + i]
        if redis.call('ZADD', index, now, ARGV[4 + i]) == 1 then
          redis.call('ZREMRANGEBYRANK', index, 0, -1 - bound)
        end
        redis.call('PEXPIRE', index, math.floor(st.reset / 500) + 3600000)
      end
      if reserve then
        record[#record + 1] = {
          KEYS[i], struct.pack(SPEC, spec.algo, 0, spec.limit, cost, spec.p1, spec.p2, spec.p3, spec.p4), tag1, tag2,
        }
      end
    end
  end
  if reserve then
    local keys = {}
    for i = 1, #record do keys[i] = record[i][1] end
    redis.call('SET', KEYS[2 * n + 1], table.concat(keys, ' ') .. '\n' .. cmsgpack.pack(record),
      'PX', life)
  end
end

local out = {struct.pack('<Bd', status, now)}
for i = 1, n do
  local st = states[i]
  out[i + 1] = struct.pack('<Bi8i8i8i8', (st.allowed and 1 or 0) + (st.impossible and 2 or 0),
    st.used, st.remaining, st.retry, st.reset)
end
local answer = table.concat(out)
if token and status == 1 and not dry then
  local keys = {}
  for i = 1, n do keys[i] = KEYS[i] end
  redis.call('SET', token_key, cmsgpack.pack({ARGV[4], table.concat(keys, ' ') .. '\n' .. ARGV[3], answer}),
    'PX', 600000)
end
return answer
