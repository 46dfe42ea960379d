-- include: cells/cells.lua
--
-- What a call requests, unpacked from its arguments. A library.

-- What arguments say, by their bytes: the same for every call of one kind to one pool.
local asks, asked_for = {}, 0
local lists, listed_for = {}, 0

-- Units and costs of a call: the units of the templates, costs by unit, which units a configured limit counts, and the
-- reason of each; which model it requests (nil: none was named) and whose learned quotas apply to it ('': those of calls
-- that name none); where its units in flight are counted; how much must be left of each template that it states no cost
-- for.
local function ask_of(packed)
  local made = asks[packed]
  if made then return made end
  local units, costs, model = unpack(cmsgpack.unpack(packed))
  made = {units = units, costs = costs, held = {}, reasons = {}, flying = {}, least = {}, resource = model,
    model = model ~= '' and model or nil}
  for j = 1, #units do
    local plain = sub(units[j], 1, 2) == 'k:' and sub(units[j], 3)
    made.held[units[j]] = true
    made.reasons[j] = plain and 'key' or units[j]
    made.least[j] = costs[plain or units[j]] and 0 or 1
  end
  for unit in pairs(costs) do made.flying[unit] = model == '' and unit or unit .. '\n' .. model end
  if asked_for >= 1000 then asks, asked_for = {}, 0 end
  asks[packed], asked_for = made, asked_for + 1
  return made
end

-- Specs, each with a table for its state during a call.
local function specs_of(packed)
  local made = lists[packed]
  if made then return made end
  made = {}
  local at, size = 1, #packed
  while at < size do
    local spec
    spec, at = spec_unpack(packed, at)
    spec.state = {}
    made[#made + 1] = spec
  end
  if listed_for >= 1000 then lists, listed_for = {}, 0 end
  lists[packed], listed_for = made, listed_for + 1
  return made
end
