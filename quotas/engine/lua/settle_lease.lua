-- include: clock.lua
-- include: account/flights.lua
-- include: account/health.lua
-- include: account/learned.lua
-- include: account/demand.lua
-- include: settle_lease/call.lua
-- include: settle_lease/units.lua
-- include: settle_lease/pool.lua
-- include: settle_lease/learned.lua
-- include: settle_lease/credential.lua
-- include: settle_lease/health.lua
-- include: settle_lease/cooldown.lua
-- include: settle_lease/breaker.lua
-- include: settle_lease/concurrency.lua
--
-- End a call through a lease: release its slot, correct what it was charged, and learn from how it went.
--
-- KEYS  1 the lease   2 the account's state   3 the pool's state   4 the pool's statistics
--       5 the key's cooldown, or the lease again if it has none   6.. a counter per template, as the lease's first
--       line names them
-- ARGV  1 now in microseconds, or '' for the server's own time
--       2 '<dddBB' wait that the provider requests and latency in microseconds (-1: not known), random 0..1,
--         scope (0 account, 1 key, 2 pool, 3 model), whether the account's credential was refused (0 no, 1 perhaps:
--         it may be about the request, 2 for certain); then, where they are known, 8 bytes that stand for the method
--         and path of the request and 8 that stand for the request itself (a job, a call with all of its attempts);
--         zeros: not known
--       3 category ('ok' or an error's)   4 error text   5 the lease's id
--       6 units of actual use, newline separated   7 '<d..' their amounts
--       8 learned units, newline separated
--       9 '<dddddB..' per learned unit: limit, remaining, reset, window (-1: not known), spare, 1 bucket 0 window
--       10 what they belong to, and a refusal of scope model: '' the account, '.' the model that the lease was acquired
--          for, '.name' this model or resource
--
-- Returns nil for a lease that is not known, else {repeated 0|1, category, cooldown in microseconds (as text),
-- transition, concurrency before, after, account,
-- share of errors and of the quota used that moved it (thousandths), 1 for a probe}. The first call counts; later ones get its answer for an hour. A late one
-- (the lease has expired) still counts for health and learning; only its slot was free already.
--
-- Rules. Units: what was not used comes back, what was used on top is charged; a call that was refused or not valid
-- (rate_limited, quota_exhausted, auth, validation) used no units but its request; one that was never made ('unused')
-- gets all of it back and leaves no trace. Cooldown: the provider's wait, else
-- a default that doubles with each refusal in a row; never shortened, lengthened by at most a tenth, bounded by the
-- pool's maximum. Refusals of calls that began before the cooldown did are the same refusal. Breaker: only server,
-- network and timeout errors move it, only by calls that began in the present epoch. A call whose end is not known
-- (`unknown`: its caller cancelled it) moves neither health nor breaker.
--
-- Refused credentials: a certain refusal disables the account. Another one is first remembered; the second disables it
-- where it was another request, with no success between. The same method and path count as another request only where
-- another account has succeeded with them meanwhile, or where there is no other account: a path that is closed to every
-- credential disables none.
--
-- Shared limits: several accounts that are refused within seconds until the same second may share one limit, or have
-- windows that end together. It is a suspicion until another account answers; acquire.lua lets one call at a time find
-- out. A success ends the suspicion, a refusal until the same time confirms it: then the whole pool cools down.
--
-- The pool's state: cd as an account's; hits {account = {when, until}} of late refusals; sus {till, at, of} the
-- suspicion, tr {lease, expiry} the call that tries it; rp {path = account, or '*' for several} paths refused since
-- somebody's last success with them; all until when the event `pool_limited` is not repeated.

local KEPT = '3600000' -- milliseconds that the answer to a settle is kept for later ones

-- Store the states and the answer.
local function store(ended, KEYS)
  state_write(KEYS[2], ended.state)
  if ended.pool_changed then state_write(KEYS[3], ended.pool) end
  local cooldown = string.format('%.0f', ended.cooldown)
  call('SET', KEYS[1], '=' .. ended.category .. '\n' .. cooldown .. '\n' .. ended.id, 'PX', KEPT)
  return cooldown
end

-- at each call:

local stored = call('MGET', KEYS[1], KEYS[2], unpack(KEYS, 6))
local raw = stored[1]
if not raw then return nil end
if sub(raw, 1, 1) == '=' then
  local category, cooldown, id = string.match(raw, '^=([^\n]*)\n([^\n]*)\n(.*)$')
  return {1, category, cooldown, '', 0, 0, id, 0, 0, 0}
end

local s = state_unpack(stored[2])
local ended = ended_call(raw, s, KEYS, ARGV)
local category, id = ended.category, ended.id
end_slot(ended)
read_used(ended, ARGV[6], ARGV[7])
correct_counters(ended, KEYS, stored)
if s.q or s.qm or s.qn then correct_learned(ended, ARGV[8] ~= '') end
note_excess(ended)
inform_pool(ended)
if ended.never then -- a call that was never made says nothing of the account
  if s.pr then s.pr[ended.lease] = nil end
  store(ended, KEYS)
  return {0, category, '0', '', 0, 0, id, 0, 0, 0}
end

learn(ended, ARGV[8], ARGV[9])
judge_credential(ended)
count_result(ended, KEYS[4])
cool_down(ended, KEYS[5] ~= KEYS[1] and KEYS[5])
store_learned(ended)
move_breaker(ended)
if ended.disables then
  s.di, s.da, s.rf = 'auth', ended.now, nil
  ended.transition = 'disabled'
end
local before, after, errors, use = weigh_concurrency(ended, KEYS)
local cooldown = store(ended, KEYS)
return {0, category, cooldown, ended.transition, before, after, id, errors, use, ended.probe}
