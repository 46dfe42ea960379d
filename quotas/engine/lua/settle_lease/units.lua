-- What a call took: its slot ends, and what it was charged is corrected by what it used. A library.

-- What the call used of a unit that it was charged for.
local function actual_of(ended, unit, cost)
  local used = ended.used
  return used and used[unit] or ended.unused and (ended.never or unit ~= 'requests') and 0 or cost
end

-- Charge quotas what the call used beyond what was reserved; refund what it did not use.
local function correct(quotas, ended)
  local costs, now = ended.costs, ended.now
  for unit, cost in pairs(costs) do
    local q, actual = quotas[unit], actual_of(ended, unit, cost)
    if q and actual ~= cost then learned().take(q, actual - cost, now) end
  end
  for unit, actual in pairs(ended.used or {}) do
    if quotas[unit] and not costs[unit] and actual > 0 then learned().take(quotas[unit], actual, now) end
  end
end

-- End the slot in flight.
local function end_slot(ended)
  local s, ask, costs = ended.state, ended.ask, ended.costs
  flight_end(s, ended.ends)
  local others = flights(s, ended.now)
  s.nf, ended.others = others, others
  if others == 0 then
    s.pe = nil
  else
    for unit, cost in pairs(costs) do
      local flying = ask.flying[unit]
      local left = (s.pe and s.pe[flying] or 0) - cost
      if s.pe then s.pe[flying] = left > 0 and left or nil end
    end
  end
end

-- The actual use by unit, where the caller stated it.
local function read_used(ended, names, amounts)
  if names == '' then return end
  local at, used = 1, {}
  for unit in string.gmatch(names, '[^\n]+') do used[unit], at = unpack_('<d', amounts, at) end
  ended.used = used
end

-- Correct the counters of the account's own limits.
local function correct_counters(ended, KEYS, stored)
  local now, lease, templates, ask = ended.now, ended.lease, ended.templates, ended.ask
  local units = ask.units
  for j = 1, ended.m do
    local spec, key, value = templates[j], KEYS[5 + j], stored[2 + j]
    local unit = units[j]
    if ask.reasons[j] == 'key' then unit = sub(unit, 3) end
    local actual = actual_of(ended, unit, spec.cost)
    if spec.algo == 6 then
      cell_refund(key, spec, now, spec.cost, tag1[j], tag2[j], lease, value)
    elseif actual < spec.cost then
      cell_refund(key, spec, now, spec.cost - actual, tag1[j], tag2[j], lease, value)
    elseif actual > spec.cost then
      local st = cell_read(key, spec, now, value, spec.state)
      if not st.stale then
        cell_decide(st, spec, now, 0)
        cell_write(key, st, spec, now, actual - spec.cost, lease)
      end
    end
  end
end

-- Correct what was learned of the account's quotas.
local function correct_learned(ended, states_quota)
  local s, ask, resource = ended.state, ended.ask, ended.resource
  -- The quotas of the model that the lease was acquired for, and those that the answer is about.
  local own, about
  if s.qm or s.qn then
    own = resource_quotas(s, ask.resource)
    about = resource and (resource == ask.resource and own or resource_quotas(s, resource))
  end
  if not resource then about = s.q end
  if s.q then correct(s.q, ended) end
  if own then
    correct(own, ended)
    if about ~= own or not states_quota then resource_store(s, ask.resource, own, ended.now) end
  end
  ended.own, ended.about = own or false, about or false
end

-- By how much estimates fall short: the most of late, fading by a fiftieth with each call.
local function note_excess(ended)
  local s, used = ended.state, ended.used
  if not used then return end
  for unit, cost in pairs(ended.costs) do
    local actual = used[unit]
    if actual then
      local most_more = math.max((s.x and s.x[unit] or 0) * 0.98, actual - cost)
      s.x = s.x or {}
      s.x[unit] = most_more >= 1 and math.floor(most_more) or nil
      if not next(s.x) then s.x = nil end
    end
  end
end
