-- How good a choice each account is, by its stored state and the pool's strategy. A chapter of acquire.lua.

-- Which account is the better choice: compared by group (probes first, then the ready, then those that just failed),
-- by the strategy's own measure, and at last by whose turn it is.
local function chance()
  seed = (seed * 16807) % 2147483647
  return seed / 2147483647
end

local function better(a, b)
  if a.group ~= b.group then return a.group < b.group end
  if a.measure ~= b.measure then return a.measure < b.measure end
  if a.turn ~= b.turn then return a.turn < b.turn end
  return a.i < b.i
end

-- What an account's state says, in the light of its pool's: leaves in it the reason and time if it can't take a call.
local function gated(i, enabled)
  local a = accounts[i]
  if a then return a end
  a = {s = state_peek(raws[i])}
  accounts[i] = a
  local reason, ready = gate(a.s, enabled, probes, now)
  if reason ~= 'disabled' then
    if paused then reason, ready = 'paused', NEVER end
    if pool.cd and pool.cd > now and ready ~= NEVER and pool.cd > (ready or 0) then
      reason, ready = 'cooldown', pool.cd
    end
    if trial_until and not reason then reason, ready = 'probing', trial_until end
  end
  a.reason, a.ready = reason, ready
  return a
end

-- nil if its state alone forbids it, else its group, measure and turn.
local function look(i)
  local weight, enabled = 1, 1
  if weights ~= '' then weight, enabled = unpack_head('<dB', weights, i * 9 - 8) end
  local marks, sq, lu, nf, cd, bo, h, ht, sc = 0, 0, -1, 0, -1, -1, 1, 0, -1
  local raw = raws[i]
  if raw then
    marks, sq, lu, nf = unpack_head('<Bddd', raw)
    if marks > 0 then cd, bo, h, ht, sc = unpack_head('<ddddd', raw, 26) end
    if sq > turn then turn = sq end
  end
  if enabled == 0 or marks % 2 == 1 or cd > now or bo >= 0 or halted then
    if gated(i, enabled == 1).reason then return nil end
  end
  local group = 1
  if bo >= 0 then group = 0
  elseif sc > now then group = 2 end
  local measure = 0
  if strategy == 2 then
    -- Calls that are out weigh against health, so that a slow account gets less and a recovering one gets some.
    measure = lu >= 0 and now - lu < life * 1000 and nf + 1 or 1
    if h >= 0 and h < 1 then
      if now > ht then h = 1 - (1 - h) * 2 ^ (-(now - ht) / HALF_LIFE) end
      h = math.max(1, floor(h * 20 + 0.5)) / 20
      measure = measure / (h * h)
    end
  elseif strategy == 3 then measure = lu >= 0 and lu or 0
  elseif strategy == 4 then
    if weight <= 0 then group = 3 end
    measure = -(chance() ^ (1 / math.max(weight, 1e-9)))
  elseif strategy == 5 then
    weigh(i)
    if accounts[i].reason then return nil end
    measure = -accounts[i].headroom
  end
  if bound_to and keys[base(i) + 1] == bound_to then group = -1 end
  return group, measure, sq
end
