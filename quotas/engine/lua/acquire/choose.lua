-- Which account takes the call, by the pool's strategy. A chapter of acquire.lua.

-- Strategies that compare would never again call an account that compares badly, and what is known of it would stay
-- as it was. So the one that was passed over longest takes one call in fifty; where calls are rare, also once a minute.
-- Both numbers grow with the pool, so that many such accounts together get a small share too.
local function is_due(oldest, oldest_turn)
  local missed = turn - oldest_turn
  if missed < 10 then return false end
  local whole = unpack_('<d', figures, 73)
  if missed >= math.max(50, 5 * whole) then return true end
  if missed < 2 * whole then return false end
  local lu = raws[oldest] and unpack_head('<d', raws[oldest], 10) or -1
  return now - lu >= UNUSED_FOR
end

-- The account to take, or nil. The best by what its state says is nearly always free. Only if it is not are the
-- others put in order.
local function choose()
  if strategy == 5 then read_all() end
  local best, best_group, best_measure, best_turn
  local oldest, oldest_turn
  local plain = strategy <= 3 and weights == '' and not halted and not bound_to
  local recently = now - life * 1000
  for i = 1, size do
    local raw, group, measure, its_turn = raws[i], 1, 0, 0
    if plain and (not raw or byte(raw) == 0) then -- all is well with it: what `look` would return, without the call
      local lu, nf = -1, 0
      if raw then
        its_turn, lu, nf = unpack_head('<ddd', raw, 2)
        if its_turn > turn then turn = its_turn end
      end
      if strategy == 2 then measure = lu > recently and nf + 1 or 1
      elseif strategy == 3 then measure = lu >= 0 and lu or 0 end
    else
      group, measure, its_turn = look(i)
    end
    if group and (not best or group < best_group or group == best_group and (measure < best_measure
        or measure == best_measure and its_turn < best_turn)) then
      best, best_group, best_measure, best_turn = i, group, measure, its_turn
    end
    if group == 1 and (not oldest or its_turn < oldest_turn) then oldest, oldest_turn = i, its_turn end
  end
  if not best then return nil end
  if (strategy == 2 or strategy == 5) and best_group == 1 and oldest ~= best and is_due(oldest, oldest_turn) then
    best = oldest
  end
  weigh(best, strategy ~= 5)
  if stale then return nil end
  if not accounts[best].reason then return best end
  local open = {}
  read_all()
  for i = 1, size do
    if i ~= best then
      local group, measure, its_turn = look(i)
      if group then open[#open + 1] = {i = i, group = group, measure = measure, turn = its_turn} end
    end
  end
  table.sort(open, better)
  for o = 1, #open do
    weigh(open[o].i)
    if stale then return nil end
    if not accounts[open[o].i].reason then return open[o].i end
  end
  return nil
end
