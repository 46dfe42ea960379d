-- Adaptive concurrency: weighed after every twenty results or two seconds, whichever is later. A library.

-- The greatest share that is used of any limit or learned quota of the account.
local function share_used(ended, keys)
  local s, now = ended.state, ended.now
  local most_used = 0
  for j = 1, ended.m do
    local spec = ended.templates[j]
    local top = spec.top
    if spec.algo ~= 6 and top > 0 then
      local st = cell_read(keys[5 + j], spec, now)
      if not st.stale then
        cell_decide(st, spec, now, 0)
        if st.used / top > most_used then most_used = st.used / top end
      end
    end
  end
  for _, quotas in ipairs({s.q or {}, resource_quotas(s, ended.ask.resource) or {}}) do
    for unit, q in pairs(quotas) do
      local level = ended.costs[unit] and q.l and learned().level(q, now)
      if level and 1 - level / (q.c or q.l) > most_used then most_used = 1 - level / (q.c or q.l) end
    end
  end
  return most_used
end

-- Returns what it was, what it is, and the shares of errors and of the quota used that moved it (thousandths); zeros
-- where it stays.
local function weigh_concurrency(ended, keys)
  if ended.initial < 0 then return 0, 0, 0, 0 end
  local s, now = ended.state, ended.now
  if ended.category == 'ok' then s.cs = (s.cs or 0) + 1
  elseif ended.broken or ended.limited then s.cf = (s.cf or 0) + 1 end
  s.ct = s.ct or now
  local results = (s.cs or 0) + (s.cf or 0)
  if results < 20 or now - s.ct < 2000000 then return 0, 0, 0, 0 end
  local bad, used = (s.cf or 0) / results, share_used(ended, keys)
  local current = s.cc or ended.initial
  local to = current
  if bad > 0.2 or used > 0.9 then
    to = math.max(ended.least_in_flight, math.floor(current * 0.8))
  elseif bad < 0.05 and used < 0.5 then
    to = math.min(ended.most_in_flight, current + 1)
  end
  s.cs, s.cf, s.ct = nil, nil, now
  if to == current then return 0, 0, 0, 0 end
  s.cc = to
  return current, to, math.floor(bad * 1000 + 0.5), math.floor(used * 1000 + 0.5)
end
