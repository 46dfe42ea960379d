-- include: clock.lua
-- include: cells/cells.lua
-- read-only: dry
--
-- Check one request against all of its limits: either every limit is charged, or none is.
--
-- KEYS  1..n       counters
--       n+1..2n    indexes of recent subjects
--       2n+1       the reservation to write            (flag 4)
--       next       the idempotency token's record      (flag 8)
-- ARGV  1          now in microseconds, or '' for the server's own time
--       2          '<BBdd' n, flags, life of the reservation in ms, length of an index; then n specs (cells/cells.lua)
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


-- ARGV 2 unpacked, by its bytes: the same for all subjects of the same policies. Each spec comes with the table that
-- is for its state during a call.
local plans, planned = {}, 0

local function plan_of(packed)
  local made = plans[packed]
  if made then return made end
  local n, flags, life, bound, at = unpack_('<BBdd', packed)
  made = {
    n = n, dry = flags % 2 >= 1, bypass = flags % 4 >= 2, reserve = flags % 8 >= 4, token = flags >= 8,
    life = life, bound = bound, specs = {}, answer = '<Bd' .. string.rep('Bi8i8i8i8', n),
  }
  for i = 1, n do
    local spec
    spec, at = spec_unpack(packed, at)
    spec.state = {}
    made.specs[i] = spec
  end
  if planned >= 1000 then plans, planned = {}, 0 end
  plans[packed], planned = made, planned + 1
  return made
end

local function charge(plan, now, KEYS, ARGV)
  local specs, n, slot = plan.specs, plan.n, ARGV[3]
  local record = plan.reserve and {}
  for i = 1, n do
    local spec = specs[i]
    local st, cost = spec.state, spec.cost
    if st.allowed and cost > 0 then
      local tag1, tag2, epoch = cell_write(KEYS[i], st, spec, now, cost, slot)
      if st.fresh then listed(KEYS[n + i], now, st.reset, ARGV[4 + i], plan.bound) end
      if record then record[#record + 1] = reserved(KEYS[i], spec, ARGV[4 + i], tag1, tag2, epoch) end
    elseif record and st.allowed and spec.algo ~= 6 then
      record[#record + 1] = reserved(KEYS[i], spec, ARGV[4 + i], 0, 0, '')
    end
  end
  if record then
    local keys = {}
    for i = 1, #record do keys[i] = record[i][1] end
    call('SET', KEYS[2 * n + 1], table.concat(keys, ' ') .. '\n' .. cmsgpack.pack(record), 'PX', plan.life)
  end
end

local figures = {}

local function answered(plan, status, now)
  figures[1], figures[2] = status, now
  local at, specs = 2, plan.specs
  for i = 1, plan.n do
    local st = specs[i].state
    figures[at + 1] = (st.allowed and 1 or 0) + (st.impossible and 2 or 0)
    figures[at + 2], figures[at + 3], figures[at + 4], figures[at + 5] = st.used, st.remaining, st.retry, st.reset
    at = at + 5
  end
  return pack(plan.answer, unpack(figures, 1, at))
end

-- at each call:

local now = clock(ARGV[1])
local plan = plan_of(ARGV[2])
local n, specs, token = plan.n, plan.specs, plan.token
local token_key = token and KEYS[2 * n + (plan.reserve and 2 or 1)]

if token then
  local known = call('GET', token_key)
  if known then
    local body, keys, answer = unpack(cmsgpack.unpack(known))
    if body ~= ARGV[4] then return pack('<Bd', 3, now) end
    return {answer, keys}
  end
end

local status = 1
local values = call('MGET', unpack(KEYS, 1, n))
for i = 1, n do
  local spec = specs[i]
  local st, cell = spec.state, spec.cell
  cell.read(st, KEYS[i], spec, now, values[i])
  if st.stale then return pack('<Bd', 2, now) end
  cell.decide(st, spec, now, spec.cost)
  if not st.allowed and spec.shadow == 0 and not plan.bypass then status = 0 end
end

local charges = status == 1 and not plan.dry
if charges then charge(plan, now, KEYS, ARGV) end
local answer = answered(plan, status, now)
if token and charges then
  local keys = {}
  for i = 1, n do keys[i] = KEYS[i] end
  call('SET', token_key, cmsgpack.pack({ARGV[4], table.concat(keys, ' ') .. '\n' .. ARGV[3], answer}), 'PX', 600000)
end
return answer
