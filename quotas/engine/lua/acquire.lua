-- include: clock.lua
-- include: cells.lua
-- include: account.lua
-- read-only: dry
--
-- Admit one call for both sides: hold it against its caller's limits and give it one of the pool's accounts, or
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
--       5  n specs of the caller's limits, then m specs of the account's limits (cells.lua)
--       6  for a priority that waits early: the same m specs with the limits that hold for it; else ''
--       7  what the lease keeps for its settling: '<dddddddddd' cooldown default, cooldown max, failures, window,
--          open_for, probes, floor, ceiling, initial, accounts (times in microseconds)
--       8  per account '<dB' weight, enabled; '' if all are enabled and weigh 1
--       9  msgpack {{units of the m limits, those per key marked 'k:'}, {unit = cost}, the model or ''}
--       10 share of a learned quota that holds for this priority ('<d')
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

local NEVER = -1
local LOOK_AGAIN = 1000000 -- while one call tries whether the accounts share a limit
local UNUSED_FOR = 60000000
local byte = string.byte

-- Facts of the call under way, for the functions below; each call sets all of them before it uses any.
local keys, now, n, m, size, strategy, life, initial, figures
local keyed, paused, halted
local trial_until -- while a shared limit is suspected and one call is out to try it: when to look again
local specs -- n of the caller, then m templates
local early -- the templates for a priority that waits early; empty if it does not
local asked, share, probes
local raws, pool -- stored states of the accounts, state of the pool
local accounts -- what was found out about those that had to be looked at closer
local counters -- all accounts' counters, once they were read
local turn, stale, first_account, width, seed, weights, bound_to
local wanted = {} -- keys for an MGET
local NOTHING = {}

local function no_calendar() return {pack('<Bd', 2, now), pack('<BhdB', 0, -1, 0, 0)} end

local function base(i) return first_account + (i - 1) * width end

local function account(i)
  local a = accounts[i]
  if not a then
    a = {s = state_unpack(raws[i])}
    accounts[i] = a
  end
  return a
end

-- All accounts' counters at once, where more than one account is going to be weighed.
local function read_all()
  if m == 0 or counters or size * m > 4000 then return end
  local every = {}
  for i = 1, size do
    local last = base(i + 1)
    for j = 1, m do every[#every + 1] = keys[last - m + j] end
  end
  counters = call('MGET', unpack(every))
end

local function forbid(a, reason, ready)
  if a.ready == NEVER then return end
  if not a.reason or ready == NEVER or ready > a.ready then a.reason, a.ready = reason, ready end
end

-- What was learned of an account's quotas, where it forbids the call or tells of headroom.
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
  -- Both hold: the wait that is reported is the longer one.
  local paused_till = share < 1 and learned().pause(q, cost, now, share)
  if paused_till then forbid(a, 'paused', paused_till) end
  if till or paused_till or not q.l then return end
  local level = learned().level(q, now)
  if level and level / q.l < a.headroom then a.headroom = level / q.l end
end

-- Everything that the state alone does not tell: calls in flight, limits, what was learned. Leaves in the account
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
    if early[j] then -- both hold: the wait that is reported is the longer one
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

-- Which account is the better choice: compared by group (probes first, then the ready, then those that just failed),
-- by the strategy's own measure, and at last by whose turn it is.
local function chance()
  seed = (seed * 16807) % 2147483647
  return seed / 2147483647
end

local function better(a, b)
  if a.group ~= b.group then return a.group < b.group end
  if a.measure ~= b.measure then return a.measure < b.measure end
  if a.turn ~= b.turn then return a.turn < b.turn end
  return a.i < b.i
end

-- What an account's state says, in the light of its pool's: leaves in it the reason and time if it can't take a call.
local function gated(i, enabled)
  local a = accounts[i]
  if a then return a end
  a = {s = state_peek(raws[i])}
  accounts[i] = a
  local reason, ready = gate(a.s, enabled, probes, now)
  if reason ~= 'disabled' then
    if paused then reason, ready = 'paused', NEVER end
    if pool.cd and pool.cd > now and ready ~= NEVER and pool.cd > (ready or 0) then
      reason, ready = 'cooldown', pool.cd
    end
    if trial_until and not reason then reason, ready = 'probing', trial_until end
  end
  a.reason, a.ready = reason, ready
  return a
end

-- nil if its state alone forbids it, else its group, measure and turn.
local function look(i)
  local weight, enabled = 1, 1
  if weights ~= '' then weight, enabled = unpack_head('<dB', weights, i * 9 - 8) end
  local marks, sq, lu, nf, cd, bo, h, ht, sc = 0, 0, -1, 0, -1, -1, 1, 0, -1
  local raw = raws[i]
  if raw then
    marks, sq, lu, nf = unpack_head('<Bddd', raw)
    if marks > 0 then cd, bo, h, ht, sc = unpack_head('<ddddd', raw, 26) end
    if sq > turn then turn = sq end
  end
  if enabled == 0 or marks % 2 == 1 or cd > now or bo >= 0 or halted then
    if gated(i, enabled == 1).reason then return nil end
  end
  local group = 1
  if bo >= 0 then group = 0
  elseif sc > now then group = 2 end
  local measure = 0
  if strategy == 2 then
    -- Calls that are out weigh against health, so that a slow account gets less and a recovering one gets some.
    measure = lu >= 0 and now - lu < life * 1000 and nf + 1 or 1
    if h >= 0 and h < 1 then
      if now > ht then h = 1 - (1 - h) * 2 ^ (-(now - ht) / HALF_LIFE) end
      h = math.max(1, floor(h * 20 + 0.5)) / 20
      measure = measure / (h * h)
    end
  elseif strategy == 3 then measure = lu >= 0 and lu or 0
  elseif strategy == 4 then
    if weight <= 0 then group = 3 end
    measure = -(chance() ^ (1 / math.max(weight, 1e-9)))
  elseif strategy == 5 then
    weigh(i)
    if accounts[i].reason then return nil end
    measure = -accounts[i].headroom
  end
  if bound_to and keys[base(i) + 1] == bound_to then group = -1 end
  return group, measure, sq
end

-- Strategies that compare would never again call an account that compares badly, and what is known of it would stay
-- as it was. So the one that was passed over longest takes one call in fifty; where calls are rare, also once a minute.
-- Both numbers grow with the pool, so that many such accounts together get a small share too.
local function is_due(oldest, oldest_turn)
  local missed = turn - oldest_turn
  if missed < 10 then return false end
  local whole = unpack_('<d', figures, 73)
  if missed >= math.max(50, 5 * whole) then return true end
  if missed < 2 * whole then return false end
  local lu = raws[oldest] and unpack_head('<d', raws[oldest], 10) or -1
  return now - lu >= UNUSED_FOR
end

-- The account to take, or nil. The best by what its state says is nearly always free. Only if it is not are the
-- others put in order.
local function choose()
  if strategy == 5 then read_all() end
  local best, best_group, best_measure, best_turn
  local oldest, oldest_turn
  local plain = strategy <= 3 and weights == '' and not halted and not bound_to
  local recently = now - life * 1000
  for i = 1, size do
    local raw, group, measure, its_turn = raws[i], 1, 0, 0
    if plain and (not raw or byte(raw) == 0) then -- all is well with it: what `look` would say, without asking
      local lu, nf = -1, 0
      if raw then
        its_turn, lu, nf = unpack_head('<ddd', raw, 2)
        if its_turn > turn then turn = its_turn end
      end
      if strategy == 2 then measure = lu > recently and nf + 1 or 1
      elseif strategy == 3 then measure = lu >= 0 and lu or 0 end
    else
      group, measure, its_turn = look(i)
    end
    if group and (not best or group < best_group or group == best_group and (measure < best_measure
        or measure == best_measure and its_turn < best_turn)) then
      best, best_group, best_measure, best_turn = i, group, measure, its_turn
    end
    if group == 1 and (not oldest or its_turn < oldest_turn) then oldest, oldest_turn = i, its_turn end
  end
  if not best then return nil end
  if (strategy == 2 or strategy == 5) and best_group == 1 and oldest ~= best and is_due(oldest, oldest_turn) then
    best = oldest
  end
  weigh(best, strategy ~= 5)
  if stale then return nil end
  if not accounts[best].reason then return best end
  local open = {}
  read_all()
  for i = 1, size do
    if i ~= best then
      local group, measure, its_turn = look(i)
      if group then open[#open + 1] = {i = i, group = group, measure = measure, turn = its_turn} end
    end
  end
  table.sort(open, better)
  for o = 1, #open do
    weigh(open[o].i)
    if stale then return nil end
    if not accounts[open[o].i].reason then return open[o].i end
  end
  return nil
end

-- Charge the caller's limits.
local function charge(first, bound, members, slot, reservation_key, reservation_life)
  local record = reservation_key and {}
  for i = 1, n do
    local spec = specs[i]
    local st = spec.state
    if st.allowed and spec.cost > 0 then
      local key = keys[first + i]
      local tag1, tag2, epoch = cell_write(key, st, spec, now, spec.cost, slot)
      if st.fresh then listed(keys[first + n + i], now, st.reset, members[10 + i], bound) end
      if record then record[#record + 1] = reserved(key, spec, members[10 + i], tag1, tag2, epoch) end
    elseif record and st.allowed and spec.algo ~= 6 then
      record[#record + 1] = reserved(keys[first + i], spec, members[10 + i], 0, 0, '')
    end
  end
  if record then
    local charged = {}
    for i = 1, #record do charged[i] = record[i][1] end
    call('SET', reservation_key, table.concat(charged, ' ') .. '\n' .. cmsgpack.pack(record), 'PX', reservation_life)
  end
end

-- Charge the chosen account, and write its state and the lease.
local function acquire(chosen, probe, lease, args)
  local a, b = accounts[chosen], base(chosen)
  local s = a.s
  local k = b + 1 + (keyed and 1 or 0)
  local names = keys[b + 1] .. ' ' .. keys[1] .. ' ' .. keys[2] .. ' ' .. (keyed and keys[b + 2] or '-')
  local tags = ''
  for j = 1, m do
    local spec = specs[n + j]
    local key = keys[k + j]
    names = names .. ' ' .. key
    if spec.cost > 0 then
      local tag1, tag2 = cell_write(key, a.cells[j], spec, now, spec.cost, lease)
      tags = tags .. pack('<dd', tag1, tag2)
    end
  end
  if s.nf == 0 then s.pe = nil end -- what was never settled is no longer on its way
  s.nf = s.nf + 1
  local ends = flight_add(s, now, life * 1000)
  local on_its_way = s.pe or {}
  s.pe = on_its_way
  for unit, cost in pairs(asked.costs) do
    local q = s.q and s.q[unit]
    if q then learned().take(q, cost, now) end
    if cost > 0 then
      local flying = asked.flying[unit]
      on_its_way[flying] = (on_its_way[flying] or 0) + cost
    end
  end
  for unit, q in pairs(a.own or NOTHING) do
    if asked.costs[unit] then learned().take(q, asked.costs[unit], now) end
  end
  if a.own then resource_store(s, asked.resource, a.own, now) end
  if probe > 0 then
    s.pr = s.pr or {}
    s.pr[lease] = now + life * 1000
  end
  -- What the settling has to look at in the pool's state, where there is anything (settle_lease.lua).
  local marks = probe > 0 and 1 or 0
  if pool.hits or pool.rp or pool.sus then marks = marks + 2 end
  if pool.sus and pool.sus.till > now then pool.tr = {lease, now + life * 1000} end
  local head = pack('<dddBB', now, ends, s.be or 0, marks, m)
  s.sq, s.lu = turn + 1, now
  state_write(keys[b + 1], s)
  if pool.tr and pool.tr[1] == lease then state_write(keys[1], pool) end
  local templates = n == 0 and args[5] or string.sub(args[5], 50 * n + 1)
  call('SET', keys[3], names .. '\n' .. head .. args[7] .. templates .. tags .. args[9], 'PX', life + 3600000)
end

-- Count for which reasons accounts were passed over.
local function count_skips()
  local counted = false
  for i = 1, size do
    local reason = accounts[i] and accounts[i].reason
    if reason and reason ~= 'disabled' then
      if call('HINCRBY', keys[2], 's:' .. owner_of(keys[base(i) + 1]) .. ':' .. reason, 1) == 1 then counted = true end
    end
  end
  if counted then call('PEXPIRE', keys[2], LIFE) end
end

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
local reasons = {}
if pooled and (not chosen or dry) then
  read_all()
  local possible, enabled, soonest = false, false, nil
  for i = 1, size do
    local a = account(i)
    if a.reason ~= 'disabled' then
      enabled = true
      weigh(i)
      if stale then return no_calendar() end
      if not a.impossible then possible = true end
      if a.reason and a.ready ~= NEVER and (not soonest or a.ready < soonest) then soonest = a.ready end
    end
  end
  if not chosen then
    pool_status = (not enabled and 3) or (not possible and 2) or 0
    wait = pool_status == 0 and soonest and soonest - now or NEVER
  end
end
local passed = pooled and not (chosen and next(accounts) == chosen and next(accounts, chosen) == nil)
if passed then
  for i = 1, size do
    local reason = accounts[i] and accounts[i].reason
    if reason then reasons[reason] = (reasons[reason] or 0) + 1 end
  end
end

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

local out = {pack('<Bd', status, now)}
for i = 1, n do
  local st = specs[i].state
  out[i + 1] = pack('<Bi8i8i8i8', (st.allowed and 1 or 0) + (st.impossible and 2 or 0),
    st.used, st.remaining, st.retry, st.reset)
end
local said = pack('<BhdB', pool_status, chosen and chosen - 1 or -1, wait, probe)
local answer = {n == 0 and out[1] or table.concat(out), said}
if dry and pooled then
  said = {said}
  for i = 1, size do
    local a = account(i)
    local till = a.reason and (a.ready == NEVER and NEVER or a.ready - now) or 0
    said[#said + 1] = pack('<Bdd', a.reason and 0 or 1, till, health_of(a.s, now))
    answer[2 + i] = a.reason or ''
  end
  answer[2] = table.concat(said)
else
  for reason, count in pairs(reasons) do
    answer[#answer + 1] = reason
    answer[#answer + 1] = count
  end
end
if token and admitted and not dry then
  call('SET', token_key, cmsgpack.pack({answer[1], answer[2], '=', ARGV[3], ARGV[4],
    chosen and owner_of(KEYS[base(chosen) + 1]) or ''}), 'PX', life)
end
return answer
