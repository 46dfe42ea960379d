-- include: cells/cells.lua
--
-- One account's live state, and what follows from it. A library, included by the scripts about accounts.
-- Times are microseconds.
--
-- A state is a table; every member may be missing. It is stored as a packed head, which is all that picking an account
-- looks at (state_peek), and the rest with cmsgpack, which is read for the few that are weighed (state_load):
--   cd until when it cools down, ca since when, cw why (category), cn refusals in a row; sc, sn the same for the soft
--   backoff after server errors (it is passed over while another account is free)
--   bo open until (missing: closed), bm why, where somebody opened it, be epoch, bf times of recent failures,
--   bw {start, successes, failures, both of the window before, failures in a row} of the breaker's window,
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

-- The account that a state's key names.
local function owner_of(key) return sub(key, string.find(key, '}', 1, true) + 6) end
