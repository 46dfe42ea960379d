-- include: clock.lua
-- include: cells.lua
--
-- One account's live state, and what follows from it. A library, included by the scripts about accounts.
-- Times are microseconds.
--
-- A state is a table; every member may be missing. It is stored as a packed head, which is all that picking an account
-- looks at (state_peek), and the rest with cmsgpack, which is read for the few that are weighed (state_load):
--   cd until when it cools down, ca since when, cw why (category), cn refusals in a row; sc, sn the same for the soft
--   backoff after server errors (it is passed over while another account is free)
--   bo open until (missing: closed), bm why, where somebody opened it, be epoch, bf times of recent failures,
--   bw {start, successes, failures, and both of the window before} of the breaker's window,
--   pr {lease = expiry} of probes that are out, pk probes that succeeded
--   di why it is disabled, da since when; rf {request, its path, when it began} of the first refusal of its credential
--   that was not certain; ra, rn since when refusals (all answers) are about the present credential
--   h, ht health and when it was true; la latency (mean), lu last used, sq its turn in the pool's sequence,
--   nf calls in flight when it was last used
--   fl calls in flight, {end of their leases, how many, ...}, the earliest end first; on successes
--   cc concurrency now, cs, cf successes and failures since it was last weighed, ct when that was
--   q {unit = {l limit, c capacity, if that seems smaller, v level, t when, w window, e end of a stepping window,
--      b from when on the level is unknown again, a when asked, k kind,
--      n, u since when the window after it is used, unseen, and how much}}: quotas of the account as a whole
--   qn the same of calls that name no model or resource
--   qm {resource = '<d' when it was used last, then a packed table as q}: quotas of one model or resource
--   pe {unit, or unit, a line break and the model = units in flight}
--   x {unit = by how much calls of late took more than was reserved for them, at the most}
--   kc, ks keys refused since ks; md {model = until when it is refused}
--   le last error, lt when, lk its category
--   sx when the statistics' life was last prolonged

local LIFE = '2592000000' -- a month, from the last use
local HALF_LIFE = 120000000 -- of what health has lost, while nothing happens
local SHARE = 0.2 -- of one result in health
local MINUTE = 60000000 -- a window whose length is not known
local STALE = 3600000000 -- a quota that no answer has confirmed for so long, and whose window is over, says nothing
local RESOURCES = 32 -- of so many models or resources an account's quotas are kept

-- The head: marks (1 disabled, 2 anything of cd, bo, h below 1, sc), sq, lu, nf; then what those marks stand for.
local HEAD = '<Bddddddddd'
local unpack_head = struct.unpack

local function into(s, raw)
  local marks, sq, lu, nf, cd, bo, h, ht, sc, cc = unpack_head(HEAD, raw)
  s.off = marks % 2 == 1
  s.nf = nf
  if sq >= 0 then s.sq = sq end
  if lu >= 0 then s.lu = lu end
  if cd >= 0 then s.cd = cd end
  if bo >= 0 then s.bo = bo end
  if h >= 0 then s.h, s.ht = h, ht end
  if sc >= 0 then s.sc = sc end
  if cc >= 0 then s.cc = cc end
  return s
end

-- The head of a stored state: enough for `gate`.
local function state_peek(raw)
  if not raw then return {} end
  return into({raw = raw}, raw)
end

-- The whole of a stored state.
local function state_unpack(raw)
  if not raw then return {} end
  return into(cmsgpack.unpack(sub(raw, 74)), raw)
end

-- The rest of a state that was peeked at.
local function state_load(s)
  if not s.raw then return s end
  local rest = cmsgpack.unpack(sub(s.raw, 74))
  s.raw = nil
  for name, value in pairs(rest) do s[name] = value end
  return s
end

-- Store a loaded state, as the last thing that is done with it: the table is used up.
local function state_write(key, s)
  local h = s.h or 1
  local marks = (s.di and 1 or 0) + ((h < 1 or s.cd or s.bo or s.sc) and 2 or 0)
  local head = pack(HEAD, marks, s.sq or -1, s.lu or -1, s.nf or 0, s.cd or -1, s.bo or -1, s.h or -1, s.ht or -1,
    s.sc or -1, s.cc or -1)
  s.off, s.cd, s.bo, s.h, s.ht, s.sq, s.lu, s.sc, s.cc, s.nf = nil, nil, nil, nil, nil, nil, nil, nil, nil, nil
  call('SET', key, head .. cmsgpack.pack(s), 'PX', LIFE)
end

-- How many calls are in flight; those whose lease has expired are forgotten.
local function flights(s, now)
  local f = s.fl
  if not f then return 0 end
  local n, gone = 0, 0
  for i = 1, #f, 2 do
    if f[i] > now then n = n + f[i + 1] else gone = i + 1 end
  end
  if n == 0 then
    s.fl = nil
  elseif gone > 0 then
    local left = {}
    for i = gone + 1, #f do left[i - gone] = f[i] end
    s.fl = left
  end
  return n
end

-- One more call in flight, for `life` microseconds; returns the end that it is kept under. From 16 ends on, further
-- ones are rounded up to a sixteenth of a life, so that thousands of calls take the room of thirty.
local function flight_add(s, now, life)
  local ends = now + life
  local f = s.fl
  if not f then
    s.fl = {ends, 1}
    return ends
  end
  local size = #f
  if size >= 32 then
    local step = math.ceil(life / 16)
    ends = math.ceil(ends / step) * step
  end
  local i = size - 1
  while i > 0 and f[i] > ends do i = i - 2 end
  if i > 0 and f[i] == ends then
    f[i + 1] = f[i + 1] + 1
  else
    table.insert(f, i + 2, ends)
    table.insert(f, i + 3, 1)
  end
  return ends
end

-- The call that was kept under `ends` is over.
local function flight_end(s, ends)
  local f = s.fl
  if not f then return end
  for i = 1, #f, 2 do
    if f[i] == ends then
      if f[i + 1] > 1 then
        f[i + 1] = f[i + 1] - 1
      else
        table.remove(f, i)
        table.remove(f, i)
        if #f == 0 then s.fl = nil end
      end
      return
    end
  end
end

-- The account that a state's key names.
local function owner_of(key) return sub(key, string.find(key, '}', 1, true) + 6) end

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

-- The quotas of one model or resource, unpacked; nil where none are known.
local function resource_quotas(s, resource)
  if resource == '' then return s.qn end
  local packed = s.qm and s.qm[resource]
  return packed and cmsgpack.unpack(sub(packed, 9))
end

-- Store them. Of more than RESOURCES the one that was used least recently is dropped.
local function resource_store(s, resource, quotas, now)
  if resource == '' then
    s.qn = quotas
    return
  end
  local all = s.qm or {}
  if not all[resource] then
    local count, oldest, name = 0, nil, nil
    for other, packed in pairs(all) do
      count = count + 1
      local used = unpack_head('<d', packed)
      if not oldest or used < oldest then oldest, name = used, other end
    end
    if count >= RESOURCES then all[name] = nil end
  end
  all[resource] = pack('<d', now) .. cmsgpack.pack(quotas)
  s.qm = all
end

-- Units in flight, of one model or ('nil') of all.
local function in_flight(s, unit, model)
  if not s.pe then return 0 end
  if model then return s.pe[model == '' and unit or unit .. '\n' .. model] or 0 end
  local sum, prefix = 0, unit .. '\n'
  for name, units in pairs(s.pe) do
    if name == unit or sub(name, 1, #prefix) == prefix then sum = sum + units end
  end
  return sum
end

-- What is done with learned quotas: {level, wait, pause, take}, made only where there are any.
local made_learned
local function learned()
  if made_learned then return made_learned end

  local function refills(q) return q.k == 'bucket' and q.l and q.w end

  -- The level of a learned quota now: nil while it says nothing (no remainder known, its window is over, it is stale).
  local function level_of(q, now)
    if not q.v or (q.b and now >= q.b) then return nil end
    local age = now - q.a
    if age > STALE and age > (q.w or 0) and not (q.e and now < q.e) then return nil end
    if q.k == 'bucket' then
      if not q.l or not q.w then
        if q.e and now >= q.e then return nil end
        return q.v
      end
      local v = q.v + (now > q.t and now - q.t or 0) * q.l / q.w
      local c = q.c or q.l
      return v < c and v or c
    end
    if q.e and now >= q.e then
      if not q.l then return nil end
      return q.l - (q.n and now < q.n + (q.w or MINUTE) and q.u or 0)
    end
    return q.v
  end

  -- When the level is at least `need`; nil: now, or nobody knows. `need` is not above the bucket's capacity.
  local function reached(q, level, need, now)
    if level + 1e-6 >= need then return nil end
    local till
    if refills(q) then till = now + math.ceil((need - level) * q.w / q.l)
    elseif q.e and now < q.e then till = q.e
    elseif q.n then till = q.n + (q.w or MINUTE) end
    if till and q.b and q.b < till then till = q.b end
    return till
  end

  -- Whether a learned quota has room for `cost`: nil, or until when it has not (-1 never: above the limit that the
  -- provider states). `more`: what a call may take beyond its estimate, as far as is known; a tenth of the bucket is
  -- kept for that at the most. A capacity that was only concluded forbids nothing for ever: a cost above it passes
  -- when the bucket is full.
  local function wait_of(q, cost, now, more)
    local level = level_of(q, now)
    if not level or cost == 0 then return nil end
    if q.l and cost > q.l and level < cost then return -1 end
    local need = cost
    if refills(q) then
      local top = q.c or q.l
      local margin = top >= 40 and 2 or 0 -- calls arrive with jitter: an exactly empty bucket refuses some
      if more then margin = margin + math.min(more, floor(top / 10)) end
      need = cost > top and top or cost + margin > top and cost or cost + margin
    end
    return reached(q, level, need, now)
  end

  -- The same for a priority that leaves a share of the quota to others. A cost above its own share passes when the
  -- quota is whole.
  local function pause_of(q, cost, now, share)
    local level = q.l and level_of(q, now)
    if not level or cost == 0 then return nil end
    local top = q.c or q.l
    return reached(q, level, math.min(top, top * (1 - share) + cost), now)
  end

  -- Charge a learned quota (a negative cost gives back).
  local function take(q, cost, now)
    if q.b and now >= q.b then -- the first call after an explicit wait; those behind it go by the level again
      q.b = nil
      local level = level_of(q, now)
      if level and level < cost then q.v, q.t = cost, now end
    end
    local level = level_of(q, now)
    if not level then return end
    if refills(q) then
      q.v, q.t = level - cost, now
    elseif q.e and now >= q.e then -- the next window, unseen: counted here until an answer states it
      if not q.n or now >= q.n + (q.w or MINUTE) then q.n, q.u = now, 0 end
      q.u = math.min(q.l, q.u + cost)
    else
      q.v = level - cost
    end
  end

  -- A quota as an answer states it. Times are microseconds, -1 stands for what it does not state; `flying`: units of
  -- calls that this answer has not counted, as far as is known.
  local function state(limit, remaining, reset, per, bucket, asked, now, flying)
    local q = {a = asked, t = now, k = bucket and 'bucket' or 'window'}
    if limit >= 0 then q.l = limit end
    if per > 0 then q.w = per end
    if reset >= 0 then q.e = now + reset
    elseif per > 0 and not bucket then q.e = now + per end -- at the latest
    if remaining < 0 then return q end
    q.v = remaining - flying
    if bucket and q.l and q.l > 0 then
      local used = limit - remaining
      -- It is full after `reset`, so that is how fast it refills, unless too little is missing to conclude from it.
      if reset > 0 and used >= limit / 10 and reset * limit / used > (q.w or 0) then q.w = reset * limit / used end
      -- Full sooner than its rate allows: the bucket seems to be smaller than a whole window's limit.
      local top = q.w and reset >= 0 and remaining + reset * limit / q.w or limit
      if top > 0 and top < limit then q.c = math.max(1, top) end
    end
    return q
  end

  made_learned = {level = level_of, wait = wait_of, pause = pause_of, take = take, state = state}
  return made_learned
end

-- What arguments say, by their bytes: the same for every call of one kind to one pool.
local asks, asked_for = {}, 0
local lists, listed_for = {}, 0

-- Units and costs of a call: the units of the templates, costs by unit, which units a configured limit holds, and the
-- reason of each; which model it asks for (nil: none was named) and whose learned quotas hold for it ('': those of calls
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

-- Specs, each with a table that holds its state during a call.
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
