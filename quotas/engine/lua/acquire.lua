-- include: clock.lua
-- include: account/flights.lua
-- include: account/health.lua
-- include: account/learned.lua
-- include: account/demand.lua
-- include: acquire/call.lua
-- include: acquire/weigh.lua
-- include: acquire/rank.lua
-- include: acquire/choose.lua
-- include: acquire/charge.lua
-- include: acquire/answer.lua
-- read-only: dry
--
-- Admit one call for both sides: check it against its caller's limits and assign one of the pool's accounts, or
-- neither. Either everything is charged or nothing is.
--
-- KEYS  1 the pool's state   2 the pool's statistics   3 the lease to write
--       then, as the flags say: 4 the token's record, the reservation to write, the sticky key's binding
--       then n counters and n indexes of the caller's limits (as in check.lua)
--       then for each account: its state, its key's cooldown (flag 16), its m counters
-- ARGV  1  now in microseconds, or '' for the server's own time
--       2  '<BBBHBddddd' n, flags, m, accounts, strategy, random 0..1, life of a lease, life of the reservation (ms),
--          length of an index, most in flight per account at the start (-1: not limited)
--       3  lease   4  id of the reservation, and of the slots of the caller's concurrency limits
--       5  n specs of the caller's limits, then m specs of the account's limits (cells/cells.lua)
--       6  for a priority that waits early: the same m specs with the limits that apply to it; else ''
--       7  what the lease keeps for its settling: '<dddddddddd' cooldown default, cooldown max, failures, window,
--          open_for, probes, floor, ceiling, initial, accounts (times in microseconds)
--       8  per account '<dB' weight, enabled; '' if all are enabled and weigh 1
--       9  msgpack {{units of the m limits, those per key marked 'k:'}, {unit = cost}, the model or ''}
--       10 share of a learned quota that applies to this priority ('<d')
--       11.. n index members
-- Flags: 1 dry run with one line per account, 2 don't count skips, 4 reserve, 8 token, 16 key, 32 sticky, 64 pool,
--        128 the pool is paused.
-- Strategy: 1 round_robin 2 health 3 least_recently_used 4 weighted_random 5 most_headroom
--
-- Returns {limits, pool, reason, count, reason, count, ...}. limits: '<Bd' status (0 denied, 1 allowed, 2 stale
-- calendar), now; then '<Bi8i8i8i8' per limit, as check.lua. pool: '<BhdB' status (0 none free, 1 an account or no pool
-- asked, 2 impossible, 3 all disabled), index of the account or -1, wait in microseconds (-1 never), 1 if it is a
-- probe, the first since the breaker half-opened, 2 a further one; with flag 1 followed by '<Bdd' per account: 1 if it could take the call, wait, health; then the reasons are
-- one per account instead ('' if none). A known token answers what it answered: {limits, pool, '=', lease, reservation}.
--
-- Example, one account with one bucket, no caller's limits:
--   FCALL sluice_acquire_<digest> 5 {sl}:a:p:llm {sl}:a:n:llm {sl}:a:l:XYZ {sl}:a:s:a1 {sl}:l:llm-0:0:tb:requests:h ...
--   -> {'\1<now>', '\1' 0 0 0}

-- at each call:

now = clock(ARGV[1])
keys = KEYS
local flags, random, reservation_life, bound
n, flags, m, size, strategy, random, life, reservation_life, bound, initial = unpack_('<BBBHBddddd', ARGV[2])
local dry, quiet, reserve, token = flags % 2 >= 1, flags % 4 >= 2, flags % 8 >= 4, flags % 16 >= 8
keyed, paused = flags % 32 >= 16, flags >= 128
local sticky, pooled = flags % 64 >= 32, flags % 128 >= 64

local at = 4
local token_key, reservation_key, sticky_key
if token then token_key, at = KEYS[at], at + 1 end
if reserve then reservation_key, at = KEYS[at], at + 1 end
if sticky then sticky_key, at = KEYS[at], at + 1 end
local first = at - 1
first_account = first + 2 * n
width = 1 + (keyed and 1 or 0) + m
accounts, counters, turn, stale, halted, bound_to, trial_until = {}, nil, 0, false, false, nil, nil

if token then
  local known = call('GET', token_key)
  if known then return cmsgpack.unpack(known) end
end

-- The caller's side.
specs = specs_of(ARGV[5])
local status = 1
local values = n > 0 and call('MGET', unpack(KEYS, first + 1, first + n))
for i = 1, n do
  local spec = specs[i]
  local st = cell_read(KEYS[first + i], spec, now, values[i], spec.state)
  if st.stale then return no_calendar() end
  cell_decide(st, spec, now, spec.cost)
  if not st.allowed and spec.shadow == 0 then status = 0 end
end

-- The pool's side.
local chosen
if pooled then
  asked, early = ask_of(ARGV[9]), specs_of(ARGV[6])
  share = unpack_('<d', ARGV[10])
  probes = unpack_('<d', ARGV[7], 41)
  weights, figures = ARGV[8], ARGV[7]
  seed = floor(random * 2147483646) + 1
  for i = 1, size do wanted[i] = KEYS[first_account + (i - 1) * width + 1] end
  wanted[size + 1] = KEYS[1]
  raws = call('MGET', unpack(wanted, 1, size + 1))
  pool = raws[size + 1] and state_unpack(raws[size + 1]) or {}
  if pool.sus and pool.sus.till > now and pool.tr and pool.tr[2] > now then
    trial_until = math.min(pool.tr[2], now + LOOK_AGAIN)
  end
  halted = paused or (pool.cd and pool.cd > now) or trial_until
  bound_to = sticky and call('GET', sticky_key)
  chosen = choose()
  if stale then return no_calendar() end
end

local pool_status, wait = 1, 0
if pooled and (not chosen or dry) then
  pool_status, wait = weigh_all(chosen)
  if stale then return no_calendar() end
end
local passed = pooled and not (chosen and next(accounts) == chosen and next(accounts, chosen) == nil)

local admitted = status == 1 and pool_status == 1
local probe = 0
if chosen and accounts[chosen].s.bo then
  local s = accounts[chosen].s
  probe = (s.pk or next(s.pr or {})) and 2 or 1
end
if admitted and not dry then
  if n > 0 then charge(first, bound, ARGV, ARGV[4], reservation_key, reservation_life) end
  if chosen then
    acquire(chosen, probe, ARGV[3], ARGV)
    if sticky then call('SET', sticky_key, KEYS[base(chosen) + 1], 'PX', '3600000') end
  end
end
if passed and not quiet and not dry then count_skips() end

local said = pack('<BhdB', pool_status, chosen and chosen - 1 or -1, wait, probe)
local answer = {limits_answer(status), said}
if dry and pooled then add_accounts(answer) elseif passed then add_skips(answer) end
if token and admitted and not dry then
  call('SET', token_key, cmsgpack.pack({answer[1], answer[2], '=', ARGV[3], ARGV[4],
    chosen and owner_of(KEYS[base(chosen) + 1]) or ''}), 'PX', life)
end
return answer
