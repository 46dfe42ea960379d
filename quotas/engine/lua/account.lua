-- One account's live state, and what follows from it. A library, included by the scripts about accounts, after
-- clock.lua and cells.lua. Times are microseconds.
--
-- A state is a table; every member may be missing. It is stored as a packed head, which is all that picking an account
-- looks at (state_peek), and the rest with cmsgpack, which is read for the few that are weighed (state_load):
--   cd until when it cools down, ca since when, cw why (category), cn refusals in a row; sc, sn the same for the soft
--   backoff after server errors (it is passed over while another account is free)
--   bo open until (missing: closed), be epoch, bf times of recent failures, bw {start, successes, failures, and
--   both of the window before} of the breaker's window, pr {lease = expiry} of probes that are out, pk probes that succeeded
--   di why it is disabled, da since when
--   h, ht health and when it was true; la latency (mean), lu last used, sq its turn in the pool's sequence,
--   nf calls in flight when it was last used (the set of them is the truth)
--   cc concurrency now, cs, cf successes and failures since it was last weighed, ct when that was
--   q {unit = {l limit, c capacity, v level, t when, w window, e end of a stepping window, a when asked, k kind,
--      n, u since when the window after it is used, unseen, and how much}}
--   pe {unit = units in flight}
--   kc, ks keys refused since ks
--   le last error, lt when, lk its category
--   fx when the set of calls in flight was last tidied, sx when the statistics' life was last prolonged

local LIFE = 2592000000 -- a month, from the last use
local HALF_LIFE = 120000000 -- of what health has lost, while nothing happens
local SHARE = 0.2 -- of one result in health
local MINUTE = 60000000 -- a window whose length was not told

local HEAD = '<Bddddddddd'
local unpack_head = struct.unpack
local IN_HEAD = {off = true, cd = true, bo = true, h = true, ht = true, sq = true, lu = true, sc = true, cc = true, nf = true}

-- The head of a stored state: enough for `gate`, health and rank.
local function state_peek(raw)
  if not raw then return {} end
  local off, cd, bo, h, ht, sq, lu, sc, cc, nf, at = unpack_head(HEAD, raw)
  return {
    off = off == 1, cd = cd >= 0 and cd or nil, bo = bo >= 0 and bo or nil, h = h >= 0 and h or nil, ht = ht,
    sq = sq >= 0 and sq or nil, lu = lu >= 0 and lu or nil, sc = sc >= 0 and sc or nil, cc = cc >= 0 and cc or nil,
    nf = nf, raw = raw, at = at,
  }
end

-- The rest of a state that was peeked at.
local function state_load(s)
  if not s.raw then return s end
  local rest = cmsgpack.unpack(string.sub(s.raw, s.at))
  s.raw, s.at = nil, nil
  for name, value in pairs(rest) do s[name] = value end
  return s
end

local function state_unpack(raw) return state_load(state_peek(raw)) end

local function state_write(key, s)
  state_load(s)
  local rest = {}
  for name, value in pairs(s) do
    if not IN_HEAD[name] then rest[name] = value end
  end
  redis.call('SET', key, struct.pack(HEAD, s.di and 1 or 0, s.cd or -1, s.bo or -1, s.h or -1, s.ht or -1, s.sq or -1,
    s.lu or -1, s.sc or -1, s.cc or -1, s.nf or 0) .. cmsgpack.pack(rest), 'PX', LIFE)
end

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

-- The level of a learned quota now: nil while it says nothing (no remainder known, or its window is over).
local function learned_level(q, now)
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

-- Whether a learned quota has room for `cost`: nil, or until when it has not (-1 never).
local function learned_wait(q, cost, now)
  local level = learned_level(q, now)
  if not level or cost == 0 then return nil end
  local top = q.c or q.l
  if q.k == 'bucket' and q.l and q.w then
    local margin = top >= 40 and 2 or 0 -- calls arrive with jitter: an exactly empty bucket refuses some
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
local function learned_take(q, cost, now)
  local level = learned_level(q, now)
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
