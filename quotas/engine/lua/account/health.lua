-- include: account/state.lua
--
-- Health, and what an account's state alone forbids. A library.

-- Health, 0 to 1: what was lost comes back by half every two minutes without news.
local function health_of(s, now)
  local h = s.h
  if not h then return 1 end
  if h < 1 and now > s.ht then h = 1 - (1 - h) * 2 ^ (-(now - s.ht) / HALF_LIFE) end
  return h
end

-- One result: `weight` is -1 (a full failure) to 1 (a success).
local function health_move(s, now, weight)
  local h = health_of(s, now)
  if weight > 0 then h = h + SHARE * weight * (1 - h) else h = h + SHARE * weight * h end
  s.h, s.ht = h, now
end

-- Probes that are out and alive, and when the first of them ends.
local function probes_out(s, now)
  state_load(s)
  local n, first = 0, nil
  for lease, expiry in pairs(s.pr or {}) do
    if expiry > now then
      n = n + 1
      if not first or expiry < first then first = expiry end
    else
      s.pr[lease] = nil
    end
  end
  return n, first
end

-- What the state alone forbids: nil, or a reason and until when (-1: no end of its own).
local function gate(s, enabled, probes, now)
  if not enabled or s.off then return 'disabled', -1 end
  local reason, at
  if s.cd and s.cd > now then reason, at = 'cooldown', s.cd end
  if s.bo then
    if s.bo > now then
      if not at or s.bo > at then reason, at = 'breaker_open', s.bo end
    else
      local out, first = probes_out(s, now)
      if out >= probes and (not at or first > at) then reason, at = 'probing', first end
    end
  end
  return reason, at
end
