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
--   q {unit = {l limit, c capacity, v level, t when, w window, e end of a stepping window, a when asked, k kind,
--      n, u since when the window after it is used, unseen, and how much}}
--   pe {unit = units in flight}
--   x {unit = by how much calls of late took more than was reserved for them, at the most}
--   kc, ks keys refused since ks; md {model = until when it is refused}
--   le last error, lt when, lk its category
--   sx when the statistics' life was last prolonged

local LIFE = '2592000000' -- a month, from the last use
local HALF_LIFE = 120000000 -- of what health has lost, while nothing happens
local SHARE = 0.2 -- of one result in health
local MINUTE = 60000000 -- a window whose length was not told

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
  return into(cmsgpack.unpack(string.sub(raw, 74)), raw)
end

-- The rest of a state that was peeked at.
local function state_load(s)
  if not s.raw then return s end
  local rest = cmsgpack.unpack(string.sub(s.raw, 74))
  s.raw = nil
  for name, value in pairs(rest) do s[name] = value end
  return s
end

-- Store a loaded state, as the last thing that is done with it: the table is used up.
local function state_write(key, s)
  local h = s.h or 1
  local marks = (s.di and 1 or 0) + ((h < 1 or s.cd or s.bo or s.sc) and 2 or 0)
  local head = struct.pack(HEAD, marks, s.sq or -1, s.lu or -1, s.nf or 0, s.cd or -1, s.bo or -1, s.h or -1, s.ht or -1,
    s.sc or -1, s.cc or -1)
  s.off, s.cd, s.bo, s.h, s.ht, s.sq, s.lu, s.sc, s.cc, s.nf = nil, nil, nil, nil, nil, nil, nil, nil, nil, nil
  redis.call('SET', key, head .. cmsgpack.pack(s), 'PX', LIFE)
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
local function owner_of(key) return string.sub(key, string.find(key, '}', 1, true) + 6) end

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

-- What is done with learned quotas: {level, wait, take}, made only where there are any.
local made_learned
local function learned()
  if made_learned then return made_learned end

  -- The level of a learned quota now: nil while it says nothing (no remainder known, or its window is over).
  local function level_of(q, now)
    if not q.v then return nil end
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

  -- Whether a learned quota has room for `cost`: nil, or until when it has not (-1 never). `more`: what a call may take
  -- beyond its estimate, as far as is known; a tenth of the bucket is kept for that at the most.
  local function wait_of(q, cost, now, more)
    local level = level_of(q, now)
    if not level or cost == 0 then return nil end
    local top = q.c or q.l
    if q.k == 'bucket' and q.l and q.w then
      local margin = top >= 40 and 2 or 0 -- calls arrive with jitter: an exactly empty bucket refuses some
      if more then margin = margin + math.min(more, floor(top / 10)) end
      if cost > top then return -1 end
      if cost + margin > top then margin = 0 end
      if level >= cost + margin then return nil end
      return now + math.ceil((cost + margin - level) * q.w / q.l)
    end
    if level >= cost then return nil end
    if q.l and cost > q.l then return -1 end
    if q.e and now < q.e then return q.e end
    if q.n then return q.n + (q.w or MINUTE) end
    return nil
  end

  -- Charge a learned quota (a negative cost gives back).
  local function take(q, cost, now)
    local level = level_of(q, now)
    if not level then return end
    if q.k == 'bucket' and q.l and q.w then
      q.v, q.t = level - cost, now
    elseif q.e and now >= q.e then -- the next window, unseen: counted here until an answer tells
      if not q.n or now >= q.n + (q.w or MINUTE) then q.n, q.u = now, 0 end
      q.u = math.min(q.l, q.u + cost)
    else
      q.v = level - cost
    end
  end

  made_learned = {level = level_of, wait = wait_of, take = take}
  return made_learned
end

-- What arguments say, by their bytes: the same for every call of one kind to one pool.
local asks, asked_for = {}, 0
local lists, listed_for = {}, 0

-- Units and costs of a call: the units of the templates, costs by unit, which units a configured limit holds, and the
-- reason of each; which model it asks for (nil: none was named).
local function ask_of(packed)
  local made = asks[packed]
  if made then return made end
  local units, costs, model = unpack(cmsgpack.unpack(packed))
  made = {units = units, costs = costs, held = {}, reasons = {}, model = model ~= '' and model or nil}
  for j = 1, #units do
    made.held[units[j]] = true
    made.reasons[j] = string.sub(units[j], 1, 2) == 'k:' and 'key' or units[j]
  end
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
