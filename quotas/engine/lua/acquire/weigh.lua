-- Whether one account can take the call: calls in flight, limits, learned quotas. A chapter of acquire.lua.

-- What was learned of an account's quotas, where it forbids the call or reports headroom.
local function weigh_learned(a, q, unit, cost)
  if asked.held[unit] then
    -- A provider that says "nothing more until then" is believed beside a configured limit too.
    if q.k == 'window' and q.v and q.v < cost and q.e and now < q.e then forbid(a, unit, q.e) end
    return
  end
  -- Each of the calls that are out may take more than was reserved for it, and so may this one.
  local till = learned().wait(q, cost, now, a.s.x and a.s.x[unit] and a.s.x[unit] * (1 + a.s.nf))
  if till then
    if till == NEVER then a.impossible = true end
    forbid(a, unit, till)
  end
  -- Both apply: the wait that is reported is the longer one.
  local paused_till = share < 1 and learned().pause(q, cost, now, share)
  if paused_till then forbid(a, 'paused', paused_till) end
  if till or paused_till or not q.l then return end
  local level = learned().level(q, now)
  if level and level / q.l < a.headroom then a.headroom = level / q.l end
end

-- Everything that the state alone does not contain: calls in flight, limits, what was learned. Leaves in the account
-- its cells, its headroom, and the reason and time if it cannot take the call. With `only` the account is the first
-- that is weighed in this call: its cells are in the templates' own tables.
local function weigh(i, only)
  local a = account(i)
  if a.weighed then return end
  a.weighed = true
  a.headroom = 1
  local s, b = state_load(a.s), base(i)
  local busy = flights(s, now)
  s.nf = busy
  local most = s.cc or initial
  if most >= 0 then
    if busy >= most then
      local soon = now + math.max(s.la or 1000000, 50000)
      local more, expiry = busy - most, soon
      for f = 1, #(s.fl or {}), 2 do
        more = more - s.fl[f + 1]
        if more < 0 then expiry = s.fl[f] break end
      end
      forbid(a, 'concurrency', soon < expiry and soon or expiry)
    elseif most > 0 then
      a.headroom = (most - busy) / most
    end
  end
  local k = b + 1
  if keyed then
    k = k + 1
    local till = call('GET', keys[k])
    if till and tonumber(till) > now then forbid(a, 'key', tonumber(till)) end
  end
  local refused = asked.model and s.md and s.md[asked.model]
  if refused and refused > now then forbid(a, 'model', refused) end
  a.cells = {}
  local stored, before = counters, (i - 1) * m
  if m > 0 and not stored then stored, before = call('MGET', unpack(keys, k + 1, k + m)), 0 end
  for j = 1, m do
    local spec = specs[n + j]
    local st = cell_read(keys[k + j], spec, now, stored[before + j], only and spec.state)
    if st.stale then stale = true return end
    -- What states no cost for a unit is charged for it when it is settled, and waits while nothing is left.
    local cost = spec.cost > 0 and spec.cost or asked.least[j]
    cell_decide(st, spec, now, cost)
    a.cells[j] = st
    if st.impossible then a.impossible = true end
    if not st.allowed then forbid(a, asked.reasons[j], st.retry < 0 and NEVER or now + st.retry) end
    if early[j] then -- both apply: the wait that is reported is the longer one
      local soft = cell_read(keys[k + j], early[j], now, stored[before + j], early[j].state)
      cell_decide(soft, early[j], now, early[j].cost > 0 and early[j].cost or asked.least[j])
      if not soft.allowed then forbid(a, 'paused', soft.retry < 0 and NEVER or now + soft.retry) end
    end
    local top = spec.top
    if top > 0 and st.remaining / top < a.headroom then a.headroom = st.remaining / top end
  end
  if s.q then
    for unit, q in pairs(s.q) do
      local cost = asked.costs[unit]
      if cost then weigh_learned(a, q, unit, cost) end
    end
  end
  if s.qm or s.qn then
    a.own = resource_quotas(s, asked.resource)
    for unit, q in pairs(a.own or NOTHING) do
      local cost = asked.costs[unit]
      if cost then weigh_learned(a, q, unit, cost) end
    end
  end
end
