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
--       9  msgpack {{units of the m limits, those per key marked 'k:'}, {unit = cost}}
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

-- at each call:

local now = clock(ARGV[1])
local n, flags, m, size, strategy, random, life, reservation_life, bound, initial =
  struct.unpack('<BBBHBddddd', ARGV[2])
local dry, quiet, reserve, token = flags % 2 >= 1, flags % 4 >= 2, flags % 8 >= 4, flags % 16 >= 8
local keyed, sticky, pooled, paused = flags % 32 >= 16, flags % 64 >= 32, flags % 128 >= 64, flags >= 128
local NEVER = -1

local at = 4
local token_key, reservation_key, sticky_key
if token then token_key, at = KEYS[at], at + 1 end
if reserve then reservation_key, at = KEYS[at], at + 1 end
if sticky then sticky_key, at = KEYS[at], at + 1 end
local counters = at - 1
local first_account = counters + 2 * n
local width = 1 + (keyed and 1 or 0) + m

if token then
  local known = redis.call('GET', token_key)
  if known then return cmsgpack.unpack(known) end
end

local function no_calendar() return {struct.pack('<Bd', 2, now), struct.pack('<BhdB', 0, -1, 0, 0)} end

-- The caller's side.
local specs, states = {}, {}
local status = 1
local position = 1
local values = n > 0 and redis.call('MGET', unpack(KEYS, counters + 1, counters + n))
for i = 1, n do
  local spec
  spec, position = spec_unpack(ARGV[5], position)
  local st = cell_read(KEYS[counters + i], spec, now, values[i])
  if st.stale then return no_calendar() end
  cell_decide(st, spec, now, spec.cost)
  if not st.allowed and spec.shadow == 0 then status = 0 end
  specs[i], states[i] = spec, st
end

-- The pool's side.
local template_specs = position
local templates, early
local units, costs, held -- held: units that a configured limit holds; the rest follow what was learned
local share, probes
local lease = ARGV[3]
local raws, pool -- stored states of the accounts, state of the pool
local accounts = {} -- what was found out about those that had to be looked at closer
local turn = 0
local stale = false
local function base(i) return first_account + (i - 1) * width end

local function account(i)
  local a = accounts[i]
  if not a then
    a = {s = state_unpack(raws[i])}
    accounts[i] = a
  end
  return a
end

if pooled then
  local asked = cmsgpack.unpack(ARGV[9])
  units, costs = asked[1], asked[2]
  templates, early, held = {}, {}, {}
  local early_position = 1
  for j = 1, m do
    templates[j], position = spec_unpack(ARGV[5], position)
    if ARGV[6] ~= '' then early[j], early_position = spec_unpack(ARGV[6], early_position) end
    held[units[j]] = true
  end
  share = struct.unpack('<d', ARGV[10])
  probes = struct.unpack('<d', ARGV[7], 41)
  local keys = {}
  local names = KEYS
  for i = 1, size do keys[i] = names[first_account + (i - 1) * width + 1] end
  keys[size + 1] = KEYS[1]
  raws = redis.call('MGET', unpack(keys))
  if raws[size + 1] then pool = state_unpack(raws[size + 1]) else pool = {} end
end

-- All accounts' counters at once, where more than one account is going to be weighed.
local all_counters
local function read_all()
  if m == 0 or all_counters or size * m > 4000 then return end
  local keys = {}
  for i = 1, size do
    local last = base(i + 1)
    for j = 1, m do keys[#keys + 1] = KEYS[last - m + j] end
  end
  all_counters = redis.call('MGET', unpack(keys))
end

-- Everything that the state alone does not tell: calls in flight, limits, what was learned. Leaves in the account
-- its cells, its headroom, and the reason and time if it cannot take the call.
local function weigh(i)
  local a = account(i)
  if a.weighed then return end
  a.weighed = true
  a.headroom = 1
  local s, b = state_load(a.s), base(i)
  local busy = flights(s, now)
  s.nf = busy
  local function forbid(reason, ready)
    if a.ready == NEVER then return end
    if not a.reason or ready == NEVER or ready > a.ready then a.reason, a.ready = reason, ready end
  end
  local most = s.cc or initial
  if most >= 0 then
    if busy >= most then
      local soon = now + math.max(s.la or 1000000, 50000)
      local more, expiry = busy - most, soon
      for f = 1, #(s.fl or {}), 2 do
        more = more - s.fl[f + 1]
        if more < 0 then expiry = s.fl[f] break end
      end
      forbid('concurrency', soon < expiry and soon or expiry)
    elseif most > 0 then
      a.headroom = (most - busy) / most
    end
  end
  local k = b + 1
  if keyed then
    k = k + 1
    local till = redis.call('GET', KEYS[k])
    if till and tonumber(till) > now then forbid('key', tonumber(till)) end
  end
  a.cells = {}
  local stored, before = all_counters, (i - 1) * m
  if m > 0 and not stored then stored, before = redis.call('MGET', unpack(KEYS, k + 1, k + m)), 0 end
  for j = 1, m do
    local spec = templates[j]
    local st = cell_read(KEYS[k + j], spec, now, stored[before + j])
    if st.stale then stale = true return end
    cell_decide(st, spec, now, spec.cost)
    a.cells[j] = st
    local reason = units[j]
    if string.sub(reason, 1, 2) == 'k:' then reason = 'key' end
    if st.impossible then a.impossible = true end
    if not st.allowed then
      forbid(reason, st.retry < 0 and NEVER or now + st.retry)
    elseif early[j] then
      local soft = cell_read(KEYS[k + j], early[j], now, stored[before + j])
      cell_decide(soft, early[j], now, early[j].cost)
      if not soft.allowed then forbid('paused', soft.retry < 0 and NEVER or now + soft.retry) end
    end
    local top = spec.algo == 3 and spec.p1 or spec.limit
    if top > 0 and st.remaining / top < a.headroom then a.headroom = st.remaining / top end
  end
  for unit, q in pairs(s.q or {}) do
    local cost = costs[unit]
    if cost and held[unit] then
      -- A provider that says "nothing more until then" is believed beside a configured limit too.
      if q.k == 'window' and q.v and q.v < cost and q.e and now < q.e then forbid(unit, q.e) end
    elseif cost then
      local till = learned().wait(q, cost, now)
      if till then
        if till == NEVER then a.impossible = true end
        forbid(unit, till)
      elseif q.l then
        local level = learned().level(q, now)
        if level then
          if share < 1 and level - cost < q.l * (1 - share) then
            local wait = q.w and math.ceil((q.l * (1 - share) + cost - level) * q.w / q.l)
            if cost <= q.l * share then forbid('paused', q.k == 'bucket' and wait and now + wait or q.e or NEVER) end
          end
          if level / q.l < a.headroom then a.headroom = level / q.l end
        end
      end
    end
  end
end

-- Which account is the better choice: compared by group (probes first, then the ready, then those that just failed),
-- by the strategy's own measure, and at last by whose turn it is.
local seed = math.floor(random * 2147483646) + 1
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
local bound_to
-- nil if its state alone forbids it, else its group, measure and turn.
local weights, plain, halted = ARGV[8], ARGV[8] == '', false
local function look(i)
  local weight, enabled = 1, 1
  if not plain then weight, enabled = unpack_head('<dB', weights, i * 9 - 8) end
  local marks, sq, lu, nf, cd, bo, h, ht, sc = 0, 0, -1, 0, -1, -1, 1, 0, -1
  local raw = raws[i]
  if raw then
    marks, sq, lu, nf = unpack_head('<Bddd', raw)
    if marks > 0 then cd, bo, h, ht, sc = unpack_head('<ddddd', raw, 26) end
    if sq > turn then turn = sq end
  end
  if enabled == 0 or marks % 2 == 1 or cd > now or bo >= 0 or halted then
    local a = accounts[i]
    if not a then
      a = {s = state_peek(raws[i])}
      accounts[i] = a
      local reason, ready = gate(a.s, enabled == 1, probes, now)
      if reason ~= 'disabled' then
        if paused then reason, ready = 'paused', NEVER end
        if pool.cd and pool.cd > now and ready ~= NEVER and pool.cd > (ready or 0) then
          reason, ready = 'cooldown', pool.cd
        end
      end
      a.reason, a.ready = reason, ready
    end
    if a.reason then return nil end
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
      h = math.max(1, math.floor(h * 20 + 0.5)) / 20
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
  if bound_to and KEYS[base(i) + 1] == bound_to then group = -1 end
  return group, measure, sq
end

local chosen
if pooled then
  halted = paused or (pool.cd and pool.cd > now)
  bound_to = sticky and redis.call('GET', sticky_key)
  -- The best by what its state says is nearly always free. Only if it is not are the others put in order.
  if strategy == 5 then read_all() end
  local best, best_group, best_measure, best_turn
  for i = 1, size do
    local group, measure, its_turn = look(i)
    if group and (not best or group < best_group or group == best_group and (measure < best_measure
        or measure == best_measure and its_turn < best_turn)) then
      best, best_group, best_measure, best_turn = i, group, measure, its_turn
    end
  end
  if best then
    weigh(best)
    if not accounts[best].reason then chosen = best end
  end
  if best and not chosen and not stale then
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
      if stale then break end
      if not accounts[open[o].i].reason then chosen = open[o].i break end
    end
  end
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
  local record = {}
  for i = 1, n do
    local spec, st = specs[i], states[i]
    if st.allowed and spec.cost > 0 then
      local key = KEYS[counters + i]
      local tag1, tag2 = cell_write(key, st, spec, now, spec.cost, ARGV[4])
      if st.fresh then
        local index = KEYS[counters + n + i]
        if redis.call('ZADD', index, now, ARGV[10 + i]) == 1 then
          redis.call('ZREMRANGEBYRANK', index, 0, -1 - bound)
        end
        redis.call('PEXPIRE', index, math.floor(st.reset / 500) + 3600000)
      end
      if reserve then
        record[#record + 1] = {
          key, struct.pack(SPEC, spec.algo, 0, spec.limit, spec.cost, spec.p1, spec.p2, spec.p3, spec.p4), tag1, tag2,
        }
      end
    end
  end
  if reserve then
    local keys = {}
    for i = 1, #record do keys[i] = record[i][1] end
    redis.call('SET', reservation_key, table.concat(keys, ' ') .. '\n' .. cmsgpack.pack(record),
      'PX', reservation_life)
  end
end

if admitted and chosen and not dry then
  local a, b = accounts[chosen], base(chosen)
  local s = a.s
  local k = b + 1 + (keyed and 1 or 0)
  local names = KEYS[b + 1] .. ' ' .. KEYS[1] .. ' ' .. KEYS[2] .. ' ' .. (keyed and KEYS[b + 2] or '-')
  local tags = ''
  for j = 1, m do
    local spec = templates[j]
    if spec.cost > 0 then
      local key = KEYS[k + j]
      local tag1, tag2 = cell_write(key, a.cells[j], spec, now, spec.cost, lease)
      names = names .. ' ' .. key
      tags = tags .. struct.pack('<dd', tag1, tag2)
    end
  end
  if s.nf == 0 then s.pe = nil end -- what was never settled is no longer on its way
  s.nf = s.nf + 1
  local ends = flight_add(s, now, life * 1000)
  local on_its_way = s.pe or {}
  s.pe = on_its_way
  for unit, cost in pairs(costs) do
    local q = s.q and s.q[unit]
    if q then learned().take(q, cost, now) end
    if cost > 0 then on_its_way[unit] = (on_its_way[unit] or 0) + cost end
  end
  if probe > 0 then
    s.pr = s.pr or {}
    s.pr[lease] = now + life * 1000
  end
  local head = struct.pack('<dddBB', now, ends, s.be or 0, probe > 0 and 1 or 0, m)
  s.sq, s.lu = turn + 1, now
  state_write(KEYS[b + 1], s)
  if sticky then redis.call('SET', sticky_key, KEYS[b + 1], 'PX', '3600000') end
  redis.call('SET', KEYS[3], names .. '\n' .. head .. ARGV[7] .. string.sub(ARGV[5], template_specs,
    template_specs + 50 * m - 1) .. tags .. ARGV[9], 'PX', life + 3600000)
end

if passed and not quiet and not dry then
  local counted = false
  for i = 1, size do
    local reason = accounts[i] and accounts[i].reason
    if reason and reason ~= 'disabled' then
      if redis.call('HINCRBY', KEYS[2], 's:' .. owner_of(KEYS[base(i) + 1]) .. ':' .. reason, 1) == 1 then counted = true end
    end
  end
  if counted then redis.call('PEXPIRE', KEYS[2], LIFE) end
end

local out = {struct.pack('<Bd', status, now)}
for i = 1, n do
  local st = states[i]
  out[i + 1] = struct.pack('<Bi8i8i8i8', (st.allowed and 1 or 0) + (st.impossible and 2 or 0),
    st.used, st.remaining, st.retry, st.reset)
end
local said = {struct.pack('<BhdB', pool_status, chosen and chosen - 1 or -1, wait, probe)}
local answer = {table.concat(out)}
if dry and pooled then
  for i = 1, size do
    local a = account(i)
    local till = a.reason and (a.ready == NEVER and NEVER or a.ready - now) or 0
    said[#said + 1] = struct.pack('<Bdd', a.reason and 0 or 1, till, health_of(a.s, now))
    answer[2 + i] = a.reason or ''
  end
  answer[2] = table.concat(said)
else
  answer[2] = said[1]
  for reason, count in pairs(reasons) do
    answer[#answer + 1] = reason
    answer[#answer + 1] = count
  end
end
if token and admitted and not dry then
  redis.call('SET', token_key, cmsgpack.pack({answer[1], answer[2], '=', lease, ARGV[4],
    chosen and owner_of(KEYS[base(chosen) + 1]) or ''}), 'PX', life)
end
return answer
