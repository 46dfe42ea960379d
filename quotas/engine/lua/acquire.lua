-- include: clock.lua
-- include: cells.lua
-- include: account.lua
--
-- Admit one call for both sides: hold it against its caller's limits and give it one of the pool's accounts, or
-- neither. Either everything is charged or nothing is.
--
-- KEYS  1 the pool's state   2 the pool's statistics   3 the lease to write
--       then, as the flags say: 4 the token's record, the reservation to write, the sticky key's binding
--       then n counters and n indexes of the caller's limits (as in check.lua)
--       then for each account: its state, its calls in flight, its key's cooldown (flag 16), its m counters
-- ARGV  1  now in microseconds, or '' for the server's own time
--       2  '<BBBHBddddd' n, flags, m, accounts, strategy, random 0..1, life of a lease, life of the reservation (ms),
--          length of an index, most in flight per account at the start (-1: not limited)
--       3  lease   4  id of the reservation, and of the slots of the caller's concurrency limits
--       5  n specs of the caller's limits, then m specs of the account's limits (cells.lua)
--       6  for a priority that waits early: the same m specs with the limits that hold for it; else ''
--       7  what the lease keeps for its settling: '<dddddddddd' cooldown default, cooldown max, failures, window,
--          open_for, probes, floor, ceiling, initial, accounts (times in microseconds)
--       8  per account '<dB' weight, enabled
--       9  units of the m limits, then of the cost, separated by newlines; limits per key are marked 'k:'
--       10 '<d..' the cost's units     11 share of a learned quota that holds for this priority ('<d')
--       12.. n index members
-- Flags: 1 dry run with one line per account, 2 don't count skips, 4 reserve, 8 token, 16 key, 32 sticky, 64 pool,
--        128 the pool is paused.
-- Strategy: 1 round_robin 2 health 3 least_recently_used 4 weighted_random 5 most_headroom
--
-- Returns {limits, pool, reason, count, reason, count, ...}. limits: '<Bd' status (0 denied, 1 allowed, 2 stale
-- calendar), now; then '<Bi8i8i8i8' per limit, as check.lua. pool: '<BhdB' status (0 none free, 1 an account or no pool
-- asked, 2 impossible, 3 all disabled), index of the account or -1, wait in microseconds (-1 never), 1 if it is a
-- probe; with flag 1 followed by '<Bdd' per account: 1 if it could take the call, wait, health; then the reasons are
-- one per account instead ('' if none). A known token answers what it answered: {limits, pool, '=', lease, reservation}.
--
-- Example, one account with one bucket, no caller's limits:
--   EVALSHA sha 6 {sl}:a:p:llm {sl}:a:n:llm {sl}:a:l:XYZ {sl}:a:s:a1 {sl}:a:f:a1 {sl}:l:llm-0:0:tb:requests:h ...
--   -> {'\1<now>', '\1' 0 0 0}

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
local width = 2 + (keyed and 1 or 0) + m

if token then
  local known = redis.call('GET', token_key)
  if known then return cmsgpack.unpack(known) end
end

-- The caller's side.
local specs, states = {}, {}
local status = 1
local position = 1
local values = n > 0 and redis.call('MGET', unpack(KEYS, counters + 1, counters + n))
for i = 1, n do
  local spec
  spec, position = spec_unpack(ARGV[5], position)
  local st = cell_read(KEYS[counters + i], spec, now, values[i])
  if st.stale then return {struct.pack('<Bd', 2, now), struct.pack('<BhdB', 0, -1, 0, 0)} end
  cell_decide(st, spec, now, spec.cost)
  if not st.allowed and spec.shadow == 0 then status = 0 end
  specs[i], states[i] = spec, st
end

-- The pool's side.
local templates, early = {}, {}
local early_position = 1
for j = 1, m do
  templates[j], position = spec_unpack(ARGV[5], position)
  if ARGV[6] ~= '' then early[j], early_position = spec_unpack(ARGV[6], early_position) end
end
local units, costs = {}, {}
do
  local names = {}
  for name in string.gmatch(ARGV[9], '[^\n]+') do names[#names + 1] = name end
  for j = 1, m do units[j] = names[j] end
  local cost_at = 1
  for j = m + 1, #names do costs[names[j]], cost_at = struct.unpack('<d', ARGV[10], cost_at) end
end
local held = {} -- units that a configured limit holds; the rest follow what was learned
for j = 1, m do held[units[j]] = true end
local share = struct.unpack('<d', ARGV[11])
local _, _, _, _, _, probes = struct.unpack('<dddddd', ARGV[7])
local lease = ARGV[3]

local accounts = {}
local turn = 0
local function base(i) return first_account + (i - 1) * width end

if pooled then
  local keys = {}
  local names = KEYS
  for i = 1, size do keys[i] = names[first_account + (i - 1) * width + 1] end
  keys[size + 1] = KEYS[1]
  local raw = redis.call('MGET', unpack(keys))
  local pool = state_peek(raw[size + 1])
  local weights, next_weight = ARGV[8], 1
  for i = 1, size do
    local weight, enabled
    weight, enabled, next_weight = unpack_head('<dB', weights, next_weight)
    local s = state_peek(raw[i])
    if s.sq and s.sq > turn then turn = s.sq end
    local reason, ready = gate(s, enabled == 1, probes, now)
    if reason ~= 'disabled' then
      if paused then reason, ready = 'paused', NEVER end
      if pool.cd and pool.cd > now and ready ~= NEVER and pool.cd > (ready or 0) then
        reason, ready = 'cooldown', pool.cd
      end
    end
    accounts[i] = {s = s, weight = weight, reason = reason, ready = ready}
  end
end

-- Everything that the state alone does not tell: calls in flight, limits, what was learned. Leaves in the account
-- its cells, its headroom, and the reason and time if it cannot take the call.
local function weigh(i)
  local a = accounts[i]
  if a.weighed then return end
  a.weighed = true
  a.headroom = 1
  local s, b = state_load(a.s), base(i)
  local function forbid(reason, ready)
    if a.ready == NEVER then return end
    if not a.reason or ready == NEVER or ready > a.ready then a.reason, a.ready = reason, ready end
  end
  local most = s.cc or initial
  if most >= 0 then
    local busy = redis.call('ZCOUNT', KEYS[b + 2], string.format('(%.0f', now), '+inf')
    if busy >= most then
      local first = redis.call('ZRANGEBYSCORE', KEYS[b + 2], string.format('(%.0f', now), '+inf',
        'WITHSCORES', 'LIMIT', busy - most, 1)
      local soon = now + math.max(s.la or 1000000, 50000)
      local expiry = first[2] and tonumber(first[2]) or soon
      forbid('concurrency', soon < expiry and soon or expiry)
    elseif most > 0 then
      a.headroom = (most - busy) / most
    end
  end
  local k = b + 2
  if keyed then
    k = k + 1
    local till = redis.call('GET', KEYS[k])
    if till and tonumber(till) > now then forbid('key', tonumber(till)) end
  end
  a.cells = {}
  local stored = m > 0 and redis.call('MGET', unpack(KEYS, k + 1, k + m))
  for j = 1, m do
    local spec = templates[j]
    local st = cell_read(KEYS[k + j], spec, now, stored[j])
    if st.stale then a.stale = true return end
    cell_decide(st, spec, now, spec.cost)
    a.cells[j] = st
    local reason = units[j]
    if string.sub(reason, 1, 2) == 'k:' then reason = 'key' end
    if st.impossible then a.impossible = true end
    if not st.allowed then
      forbid(reason, st.retry < 0 and NEVER or now + st.retry)
    elseif early[j] then
      local soft = cell_read(KEYS[k + j], early[j], now, stored[j])
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
      local till = learned_wait(q, cost, now)
      if till then
        if till == NEVER then a.impossible = true end
        forbid(unit, till)
      elseif q.l then
        local level = learned_level(q, now)
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
local function rank(i)
  local a = accounts[i]
  local s = a.s
  local group = 1
  if s.bo then group = 0
  elseif s.sc and s.sc > now then group = 2 end
  if a.weight <= 0 and strategy == 4 then group = 3 end
  local measure = 0
  if strategy == 2 then
    -- Calls that are out weigh against health, so that a slow account gets less and a recovering one gets some.
    local h = math.max(1, math.floor(health_of(s, now) * 20 + 0.5)) / 20
    local out = s.lu and now - s.lu < life * 1000 and s.nf or 0
    measure = (out + 1) / (h * h)
  elseif strategy == 3 then measure = s.lu or 0
  elseif strategy == 4 then measure = -(chance() ^ (1 / math.max(a.weight, 1e-9)))
  elseif strategy == 5 then
    weigh(i)
    measure = -a.headroom
  end
  a.group, a.measure, a.turn = group, measure, s.sq or 0
end
local function better(a, b)
  if a.group ~= b.group then return a.group < b.group end
  if a.measure ~= b.measure then return a.measure < b.measure end
  return a.turn < b.turn
end

local chosen
if pooled then
  local bound_to = sticky and redis.call('GET', sticky_key)
  local open = {}
  for i = 1, size do
    if not accounts[i].reason then
      rank(i)
      if bound_to and KEYS[base(i) + 1] == bound_to then accounts[i].group = -1 end
      open[#open + 1] = i
    end
  end
  while #open > 0 and not chosen do
    local best = 1
    for o = 2, #open do
      if better(accounts[open[o]], accounts[open[best]]) then best = o end
    end
    local i = table.remove(open, best)
    weigh(i)
    if accounts[i].stale then return {struct.pack('<Bd', 2, now), struct.pack('<BhdB', 0, -1, 0, 0)} end
    if not accounts[i].reason then chosen = i end
  end
end

local pool_status, wait = 1, 0
local reasons = {}
if pooled and (not chosen or dry) then
  local possible, enabled, soonest = false, false, nil
  for i = 1, size do
    local a = accounts[i]
    if a.reason ~= 'disabled' then
      enabled = true
      weigh(i)
      if a.stale then return {struct.pack('<Bd', 2, now), struct.pack('<BhdB', 0, -1, 0, 0)} end
      if not a.impossible then possible = true end
      if a.reason and a.ready ~= NEVER and (not soonest or a.ready < soonest) then soonest = a.ready end
    end
  end
  if not chosen then
    pool_status = (not enabled and 3) or (not possible and 2) or 0
    wait = pool_status == 0 and soonest and soonest - now or NEVER
  end
end
if pooled then
  for i = 1, size do
    local reason = accounts[i].reason
    if reason then reasons[reason] = (reasons[reason] or 0) + 1 end
  end
end

local admitted = status == 1 and pool_status == 1
local probe = chosen and accounts[chosen].s.bo and 1 or 0
if admitted and not dry then
  local record = {}
  for i = 1, n do
    local spec, st = specs[i], states[i]
    if st.allowed and spec.cost > 0 then
      local key = KEYS[counters + i]
      local tag1, tag2 = cell_write(key, st, spec, now, spec.cost, ARGV[4])
      if st.fresh then
        local index = KEYS[counters + n + i]
        if redis.call('ZADD', index, now, ARGV[11 + i]) == 1 then
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
  local expires = now + life * 1000
  local names = {KEYS[b + 1], KEYS[b + 2], KEYS[1], KEYS[2], keyed and KEYS[b + 3] or '-'}
  local charges = {}
  local k = b + 2 + (keyed and 1 or 0)
  for j = 1, m do
    local spec = templates[j]
    if spec.cost > 0 then
      local tag1, tag2 = cell_write(KEYS[k + j], a.cells[j], spec, now, spec.cost, lease)
      local unit = units[j]
      if string.sub(unit, 1, 2) == 'k:' then unit = string.sub(unit, 3) end
      names[#names + 1] = KEYS[k + j]
      charges[#charges + 1] = {
        struct.pack(SPEC, spec.algo, 0, spec.limit, spec.cost, spec.p1, spec.p2, spec.p3, spec.p4), tag1, tag2, unit,
      }
    end
  end
  -- Once in a lease's life the set is tidied, and what was never settled is no longer on its way.
  if not s.fx or now - s.fx > life * 1000 or now < s.fx then
    redis.call('ZREMRANGEBYSCORE', KEYS[b + 2], '-inf', string.format('%.0f', now))
    s.nf = redis.call('ZCARD', KEYS[b + 2])
    if s.nf == 0 then s.pe = nil end
    s.fx = now
  end
  s.nf = (s.nf or 0) + 1
  redis.call('ZADD', KEYS[b + 2], expires, lease)
  redis.call('PEXPIRE', KEYS[b + 2], life + 60000)
  for unit, cost in pairs(costs) do
    local q = s.q and s.q[unit]
    if q then learned_take(q, cost, now) end
    if cost > 0 then
      s.pe = s.pe or {}
      s.pe[unit] = (s.pe[unit] or 0) + cost
    end
  end
  if probe == 1 then
    s.pr = s.pr or {}
    s.pr[lease] = expires
  end
  s.sq, s.lu = turn + 1, now
  state_write(KEYS[b + 1], s)
  if sticky then redis.call('SET', sticky_key, KEYS[b + 1], 'PX', '3600000') end
  redis.call('SET', KEYS[3], table.concat(names, ' ') .. '\n' .. cmsgpack.pack({
    now, s.be or 0, probe, charges, costs, ARGV[7],
  }), 'PX', life + 3600000)
end

if pooled and not quiet and not dry then
  local counted = false
  for i = 1, size do
    if accounts[i].reason and accounts[i].reason ~= 'disabled' then
      local suffix = string.match(KEYS[base(i) + 1], '[^:]+$')
      if redis.call('HINCRBY', KEYS[2], 's:' .. suffix .. ':' .. accounts[i].reason, 1) == 1 then counted = true end
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
    local a = accounts[i]
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
    chosen and string.match(KEYS[base(chosen) + 1], '[^:]+$') or ''}), 'PX', life)
end
return answer
