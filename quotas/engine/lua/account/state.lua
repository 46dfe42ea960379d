-- include: cells/cells.lua
--
-- One account's live state, and what follows from it. A library, included by the scripts about accounts.
-- Times are microseconds.
--
-- A state is a table; every member may be missing. It is stored as a packed head, which is all that picking an account
-- looks at (state_peek), and the rest with cmsgpack, which is read for the few that are weighed (state_load):
--
-- The names are short because they are stored with every account, and stay because stored states have them:
--   field  name              meaning
--   cd     cooldown_until    when it may be used again
--   ca     cooldown_at       since when it cools down
--   cw     cooldown_why      the category of the refusal
--   cn     refusals          in a row
--   sc     soft_until        soft backoff after server errors: passed over while another account is free
--   sn     soft_failures     in a row
--   bo     breaker_until     until when the breaker is open; missing: closed
--   bm     breaker_manual    why, where an operator opened it
--   be     breaker_epoch     a result counts only if its call began in the same epoch
--   bf     breaker_failures  times of the recent ones
--   bw     breaker_window    {start, successes, failures, both of the window before, failures in a row}
--   pr     probes            {lease = when it expires} of those in flight
--   pk     probes_passed     how many succeeded
--   di     disabled          why
--   da     disabled_at
--   rf     first_refusal     of its credential that was not certain: {request, its path, when it began}
--   ra     refusals_since    a refusal of an older call is not about the account as it is now
--   rn     answers_since     the same of all answers: the credential was replaced then
--   h, ht  health            and when it had that value
--   la     latency           mean
--   lu     last_used
--   sq     sequence          its turn in the pool
--   nf     in_flight         calls, when it was last used
--   fl     flights           {when their leases end, how many, ...}, the earliest end first
--   on     successes
--   cc     concurrency       the present limit of calls in flight
--   cs, cf concurrency_seen  successes and failures since that limit was last decided
--   ct     concurrency_at    when that was
--   q      quotas            {unit = quota} of the account as a whole
--   qn     quotas_unnamed    the same of calls that name no model or resource
--   qm     quotas_of_models  {resource = '<d' when it was used last, then a packed table as q}
--   pe     pending           {unit, or unit, a line break and the model = units in flight}
--   x      excess            {unit = by how much recent calls used more than was reserved, at the most}
--   kc, ks refused_keys      how many, and since when
--   md     models_until      {model = until when it is refused}
--   le     last_error        its text
--   lt     last_error_at
--   lk     last_error_kind   its category
--   sx     statistics_at     when the statistics' life was last prolonged
-- and of a pool, besides cd and sq:
--   all    limited_until     until when all of its accounts cool down for themselves: announced once
--   hits   refused_accounts  {account = {when it was refused, until when}} of the last seconds
--   sus    suspected_limit   {till, at, of = accounts}: a limit that several accounts seem to share
--   tr     trial             {lease, when it expires} of the one call that tests the suspicion
--   rp     refused_paths     {path of a request = refusals by several accounts}: closed to all of them
--
-- A learned quota: l limit, c capacity (where that seems smaller), v level, t when that was, w window, e end of a stepping
-- window, b from when on the level is unknown again, a when the answer's call began, k kind (bucket or window), n and u:
-- since when the window after it is used without an answer, and how much.

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
