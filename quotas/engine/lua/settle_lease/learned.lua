-- Quotas that an answer states. A library.

-- Learn them, if the call began later than the one that is known. `names`, `figures`: ARGV 8 and 9.
local function learn(ended, names, figures)
  local s, now, asked, resource = ended.state, ended.now, ended.asked, ended.resource
  if names == '' or ended.outdated then return end
  local at = 1
  local about, fresh = ended.about or {}, {}
  for unit in string.gmatch(names, '[^\n]+') do
    local limit, remaining, reset, per, spare, kind
    limit, remaining, reset, per, spare, kind, at = unpack_('<dddddB', figures, at)
    local before = about[unit]
    if not before or asked >= before.a then
      about[unit] = learned().state(limit, remaining, reset, per, kind == 1, asked, now, in_flight(s, unit, resource))
      fresh[unit] = remaining
    end
    if reset == ended.hint then ended.from_reset = true end
  end
  ended.about, ended.fresh = about, fresh
end

-- A wait that the provider requests outranks the reset that came with it: what was used up is unknown again from then on.
local function store_learned(ended)
  local s, fresh, about, costs, resource = ended.state, ended.fresh, ended.about, ended.costs, ended.resource
  if not fresh then return end
  if ended.hint >= 0 and ended.cooldown > 0 and not ended.from_reset then
    local till = ended.now + ended.cooldown
    for unit, remaining in pairs(fresh) do
      local q = about[unit]
      if q.v and remaining < (costs[unit] or 1) then
        if q.k == 'bucket' then q.b = till
        elseif q.e and q.e > till then q.e = till end
      end
    end
  end
  if resource then resource_store(s, resource, about, ended.now) else s.q = about end
end
