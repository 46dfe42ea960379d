-- include: clock.lua
-- include: account/flights.lua
-- include: account/health.lua
-- include: account/learned.lua
-- read-only: always
--
-- How the accounts of a pool stand. Writes nothing.
--
-- KEYS  1 the pool's state   2 the pool's statistics   then the accounts' states
-- ARGV  1 now in microseconds, or '' for the server's own time
--       2 '<dd' probes, most in flight at the start (-1: not limited)   3 per account '<B' enabled
--
-- Returns {now, statistics (a flat list), then per account: a JSON object}. Its learned quotas are by unit; those of
-- calls that name no model are shown as the account's where it has none, those of models and resources in a member
-- `models` of each unit.

local function shown(q, now)
  local level = learned().level(q, now)
  return {
    limit = q.l, window = q.w and q.w / 1e6, kind = q.k, remaining = level and math.max(0, math.floor(level)),
    reset_after = q.e and math.max(0, (q.b and q.b < q.e and q.b or q.e) - now) / 1e6, capacity = q.c and math.ceil(q.c),
  }
end

-- at each call:

local now = clock(ARGV[1])
local probes, initial = struct.unpack('<dd', ARGV[2])
local size = #KEYS - 2
local stored = redis.call('MGET', KEYS[1], unpack(KEYS, 3))
local pool = state_unpack(stored[1])
local out = {string.format('%.0f', now), redis.call('HGETALL', KEYS[2])}
for i = 1, size do
  local s = state_unpack(stored[1 + i])
  local busy = flights(s, now)
  local enabled = string.byte(ARGV[3], i) == 1
  local reason, ready = gate(s, enabled, probes, now)
  if reason ~= 'disabled' and pool.cd and pool.cd > now and pool.cd > (ready or 0) then
    reason, ready = 'cooldown', pool.cd
  end
  local quotas = {}
  for unit, q in pairs(s.q or {}) do quotas[unit] = shown(q, now) end
  for unit, q in pairs(s.qn or {}) do quotas[unit] = quotas[unit] or shown(q, now) end
  for name in pairs(s.qm or {}) do
    for unit, q in pairs(resource_quotas(s, name)) do
      local row = quotas[unit] or {}
      row.models = row.models or {}
      row.models[name] = shown(q, now)
      quotas[unit] = row
    end
  end
  local models = {}
  for name, ends in pairs(s.md or {}) do
    if ends > now then models[name] = (ends - now) / 1e6 end
  end
  local most = s.cc or initial
  out[2 + i] = cjson.encode({
    reason = reason, left = ready and ready >= 0 and (ready - now) / 1e6 or nil, half_open = s.bo and s.bo <= now,
    disabled = s.di, why = s.cw, health = health_of(s, now), latency = s.la and s.la / 1e6, used = s.lu,
    busy = busy, most = most >= 0 and most or nil, learned = quotas, error = s.le, error_at = s.lt, error_kind = s.lk,
    open = s.bo ~= nil, opened = s.bm, successes = s.on or 0, models = models,
  })
end
return out
