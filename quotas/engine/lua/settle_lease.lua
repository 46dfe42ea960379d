-- include: clock.lua
-- include: cells.lua
-- include: account.lua
--
-- End a call through a lease: give its slot back, correct what it was charged, and learn from how it went.
--
-- KEYS  1 the lease   2 the account's state   3 the pool's state   4 the pool's statistics
--       5 the key's cooldown, or the lease again if it has none   6.. a counter per template, as the lease's first
--       line names them
-- ARGV  1 now in microseconds, or '' for the server's own time
--       2 '<dddBB' wait asked for by the provider and latency in microseconds (-1: not known), random 0..1,
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

local SAME_MOMENT = 1000000
local LEAST = 1000000 -- a refusal without a hint is waited for, whatever the pool's default: jobs would go round
local MOST_PATHS = 64
local NO_MARK = string.rep('\0', 8)

-- A model's cooldown in the account's own state; of more than 64 the one that ends first is forgotten.
local function refuse_model(s, model, till, now)
  local models = s.md or {}
  local count, first = 0, nil
  for name, ends in pairs(models) do
    if ends <= now then
      models[name] = nil
    else
      count = count + 1
      if not first or ends < models[first] then first = name end
    end
  end
  if count >= 64 and not models[model] then models[first] = nil end
  models[model] = math.max(models[model] or 0, till)
  s.md = models
  return models[model] - now
end

local function backoff(first, last, count)
  local wait = first
  for _ = 2, count do
    wait = wait * 2
    if wait >= last then break end
  end
  return wait < last and wait or last
end

-- The method and path were refused to this account.
local function note_path(pool, path, id)
  local paths = pool.rp or {}
  if not paths[path] then
    local count, other = 0, nil
    for name in pairs(paths) do count, other = count + 1, name end
    if count >= MOST_PATHS then paths[other] = nil end
  end
  paths[path] = (not paths[path] or paths[path] == id) and id or '*'
  pool.rp = paths
end

-- Charge quotas what the call used beyond what was reserved; give back what it did not use.
local function correct(quotas, costs, used, actual_of, now)
  for unit, cost in pairs(costs) do
    local q, actual = quotas[unit], actual_of(unit, cost)
    if q and actual ~= cost then learned().take(q, actual - cost, now) end
  end
  for unit, actual in pairs(used or {}) do
    if quotas[unit] and not costs[unit] and actual > 0 then learned().take(quotas[unit], actual, now) end
  end
end

-- The pool's state of the call under way, read where it is needed.
local pool, pool_key
local function pool_state()
  if not pool then pool = state_unpack(redis.call('GET', pool_key)) end
  return pool
end

-- Where the charges of the call under way went, by template.
local tag1, tag2 = {}, {}

-- at each call:

local stored = redis.call('MGET', KEYS[1], KEYS[2], unpack(KEYS, 6))
local raw = stored[1]
if not raw then return nil end
if string.sub(raw, 1, 1) == '=' then
  local category, kept, id = string.match(raw, '^=([^\n]*)\n([^\n]*)\n(.*)$')
  return {1, category, kept, '', 0, 0, id, 0, 0, 0}
end

local now = clock(ARGV[1])
local hint, latency, random, scope, refused = struct.unpack('<dddBB', ARGV[2])
local category, text, lease = ARGV[3], ARGV[4], ARGV[5]
local record = string.find(raw, '\n', 1, true) + 1
local asked, ends, epoch, marks, m, default, most, failures, window, open_for, probes, floor_, ceiling, initial, size,
  specs = struct.unpack('<dddBBdddddddddd', raw, record)
local tags = specs + 50 * m
local templates = specs_of(string.sub(raw, specs, tags - 1))
for j = 1, m do
  if templates[j].cost > 0 then
    tag1[j], tag2[j] = unpack_('<dd', raw, tags)
    tags = tags + 16
  end
end
local ask = ask_of(string.sub(raw, tags))
local units, costs = ask.units, ask.costs
default = math.max(default, math.min(LEAST, most))
local probe = marks % 2
local path, request = '', lease
if #ARGV[2] > 26 then
  path, request = string.sub(ARGV[2], 27, 34), string.sub(ARGV[2], 35)
  if path == NO_MARK then path = '' end
  if request == NO_MARK then request = lease end
end
local s = state_unpack(stored[2])
local id = owner_of(KEYS[2])
-- The account has got another credential since, or was enabled since: what the old one met says nothing of it.
local outdated = s.rn and asked < s.rn
if outdated or (s.ra and asked < s.ra) then refused = 0 end
pool, pool_key = nil, KEYS[3]
local pool_changed
local transition = ''
local limited = category == 'rate_limited' or category == 'quota_exhausted'
local broken = category == 'server' or category == 'network' or category == 'timeout'
local never = category == 'unused'
local resource = ARGV[10] ~= '' and string.sub(ARGV[10], 2) or nil
if resource == '' then resource = ask.resource end
local by_model = scope == 3 and limited and not outdated and (resource and resource ~= '' and resource or ask.model)
local unused = limited or never or category == 'auth' or category == 'validation'

-- The slot.
flight_end(s, ends)
local others = flights(s, now)
s.nf = others
if others == 0 then
  s.pe = nil
else
  for unit, cost in pairs(costs) do
    local flying = ask.flying[unit]
    local left = (s.pe and s.pe[flying] or 0) - cost
    if s.pe then s.pe[flying] = left > 0 and left or nil end
  end
end

-- The units.
local used
if ARGV[6] ~= '' then
  local at = 1
  used = {}
  for unit in string.gmatch(ARGV[6], '[^\n]+') do used[unit], at = struct.unpack('<d', ARGV[7], at) end
end
local function actual_of(unit, cost)
  return used and used[unit] or unused and (never or unit ~= 'requests') and 0 or cost
end
for j = 1, m do
  local spec, key, value = templates[j], KEYS[5 + j], stored[2 + j]
  local unit = units[j]
  if ask.reasons[j] == 'key' then unit = string.sub(unit, 3) end
  local actual = actual_of(unit, spec.cost)
  if spec.algo == 6 then
    cell_refund(key, spec, now, spec.cost, tag1[j], tag2[j], lease, value)
  elseif actual < spec.cost then
    cell_refund(key, spec, now, spec.cost - actual, tag1[j], tag2[j], lease, value)
  elseif actual > spec.cost then
    local st = cell_read(key, spec, now, value, spec.state)
    if not st.stale then
      cell_decide(st, spec, now, 0)
      cell_write(key, st, spec, now, actual - spec.cost, lease)
    end
  end
end
-- The quotas of the model that the lease was acquired for, and those that the answer is about.
local own, about
if s.qm or s.qn then
  own = resource_quotas(s, ask.resource)
  about = resource and (resource == ask.resource and own or resource_quotas(s, resource))
end
if not resource then about = s.q end
if s.q then correct(s.q, costs, used, actual_of, now) end
if own then
  correct(own, costs, used, actual_of, now)
  if about ~= own or ARGV[8] == '' then resource_store(s, ask.resource, own, now) end
end

-- By how much estimates fall short: the most of late, fading by a fiftieth with each call.
if used then
  for unit, cost in pairs(costs) do
    local actual = used[unit]
    if actual then
      local most_more = math.max((s.x and s.x[unit] or 0) * 0.98, actual - cost)
      s.x = s.x or {}
      s.x[unit] = most_more >= 1 and math.floor(most_more) or nil
      if not next(s.x) then s.x = nil end
    end
  end
end

-- What the pool's state says of this lease, and what its success says of the pool.
if marks >= 2 then
  local p = pool_state()
  if p.tr and p.tr[1] == lease then p.tr, pool_changed = nil, true end
  local reached = category == 'ok' or category == 'validation'
  if p.sus and (p.sus.till <= now or (reached and asked >= p.sus.at)) then
    p.sus, p.tr, pool_changed = nil, nil, true
  end
  if p.hits then
    local first, last = now, 0
    for _, hit in pairs(p.hits) do
      if hit[1] < first then first = hit[1] end
      if hit[1] > last then last = hit[1] end
    end
    if now - last > 5000000 or (reached and asked >= first) then p.hits, pool_changed = nil, true end
  end
  if category == 'ok' and p.rp and p.rp[path] then
    p.rp[path], pool_changed = nil, true
    if not next(p.rp) then p.rp = nil end
  end
end

-- A call that was never made tells nothing of the account.
if never then
  if s.pr then s.pr[lease] = nil end
  state_write(KEYS[2], s)
  if pool_changed then state_write(KEYS[3], pool) end
  redis.call('SET', KEYS[1], '=' .. category .. '\n0\n' .. id, 'PX', '3600000')
  return {0, category, '0', '', 0, 0, id, 0, 0, 0}
end

-- What was learned, if the call began later than the one that is known.
local fresh, from_reset = nil, false
if ARGV[8] ~= '' and not outdated then
  local at = 1
  about = about or {}
  fresh = {}
  for unit in string.gmatch(ARGV[8], '[^\n]+') do
    local limit, remaining, reset, per, spare, kind
    limit, remaining, reset, per, spare, kind, at = struct.unpack('<dddddB', ARGV[9], at)
    local before = about[unit]
    if not before or asked >= before.a then
      about[unit] = learned().state(limit, remaining, reset, per, kind == 1, asked, now, in_flight(s, unit, resource))
      fresh[unit] = remaining
    end
    if reset == hint then from_reset = true end
  end
end

-- Whether the account is disabled for its credential.
local disables = refused == 2
if refused == 1 and not s.di then
  local first = s.rf -- {request, path, when it began}
  local entry = path ~= '' and pool_state().rp and pool.rp[path]
  disables = first and first[1] ~= request
    and (path == '' or first[2] ~= path or not entry or size < 2)
  if not disables then
    s.rf = first or {request, path, asked}
    if path ~= '' then
      note_path(pool_state(), path, id)
      pool_changed = true
    end
  end
elseif category == 'ok' and s.rf and asked >= s.rf[3] then
  s.rf = nil
end

-- Health, latency, counters. A recipient's refusal (auth that is not the account's) touches no health.
if category == 'ok' then
  health_move(s, now, 1)
elseif broken or (disables and not s.di) then
  health_move(s, now, -1)
elseif limited and scope ~= 1 and not by_model and not outdated then
  health_move(s, now, -0.5)
end
if latency >= 0 and (category == 'ok' or broken) then
  s.la = math.floor(s.la and s.la * 0.8 + latency * 0.2 or latency)
end
s.lu = now
if category == 'ok' then
  s.on = (s.on or 0) + 1
else
  redis.call('HINCRBY', KEYS[4], 'e:' .. id .. ':' .. category, 1)
  if category ~= 'unknown' or text ~= '' then s.le, s.lt, s.lk = text, now, category end
  if not s.sx or now - s.sx > 86400000000 then
    redis.call('PEXPIRE', KEYS[4], LIFE)
    s.sx = now
  end
end

-- Cooldown.
local cooldown = 0
local function lengthened(wait)
  return math.min(most, math.ceil(wait * (1 + 0.1 * random)))
end
if by_model then
  local wait = hint >= 0 and hint or (category == 'quota_exhausted' and 5 or 1) * default
  cooldown = refuse_model(s, by_model, now + lengthened(wait < most and wait or most), now)
elseif limited and not outdated then
  local wait = hint
  if scope == 1 and KEYS[5] ~= KEYS[1] then
    if wait < 0 then wait = default end
    cooldown = lengthened(wait < most and wait or most)
    local known = tonumber(redis.call('GET', KEYS[5]) or 0)
    if now + cooldown > known then
      redis.call('SET', KEYS[5], string.format('%.0f', now + cooldown), 'PX', string.format('%.0f', math.ceil(cooldown / 1000)))
    else
      cooldown = known - now
    end
    -- Many keys refused at once: it is the account after all.
    if not s.ks or now - s.ks > 10000000 then s.ks, s.kc = now, 0 end
    s.kc = s.kc + 1
    if s.kc >= 5 and others > 0 and s.kc > others then scope, s.kc = 0, 0 end
  end
  if scope ~= 1 or KEYS[5] == KEYS[1] then
    local same = s.ca and asked < s.ca
    if not same then s.cn = (s.cn or 0) + 1 end
    if wait < 0 then
      if category == 'quota_exhausted' then wait = backoff(5 * default, 60 * default, s.cn)
      else wait = backoff(default, 5 * default, s.cn) end
    end
    wait = wait < most and wait or most
    local till = now + lengthened(wait)
    if not (s.cd and s.cd > now) then s.ca = now end
    if not s.cd or till > s.cd then s.cd, s.cw = till, category end
    cooldown = s.cd - now
    -- Several accounts refused at once until the same moment: they may share one limit.
    pool_state()
    pool_changed = true
    local suspected = pool.sus
    if suspected and suspected.till <= now then suspected, pool.sus, pool.tr = nil, nil, nil end
    local hit_until = hint >= 0 and now + hint or 0
    if scope == 2 and hint >= 0 then
      if not pool.cd or till > pool.cd then
        if not pool.cd or pool.cd <= now then transition = 'pool_limited' end
        pool.cd = till
      end
    else
      pool.hits = pool.hits or {}
      pool.hits[id] = {now, hit_until}
      local count, low, high = 0, nil, nil
      for account, hit in pairs(pool.hits) do
        if now - hit[1] > 5000000 then
          pool.hits[account] = nil
        else
          count = count + 1
          if not low or hit[2] < low then low = hit[2] end
          if not high or hit[2] > high then high = hit[2] end
        end
      end
      local threshold = math.max(2, math.min(3, size), math.ceil(size / 2))
      if suspected and not suspected.of[id] and hit_until >= suspected.till - SAME_MOMENT
          and hit_until <= suspected.till + SAME_MOMENT + (now - suspected.at) then
        if not pool.cd or pool.cd <= now then transition = 'pool_limited' end
        local shared = math.min(suspected.till, now + most)
        if not pool.cd or shared > pool.cd then pool.cd = shared end
        pool.sus, pool.tr, pool.hits = nil, nil, nil
      elseif count >= size and size >= 2 then -- nobody is left to try: each cools down for itself
        if not (pool.all and pool.all > now) then transition, pool.all = 'pool_limited', now + cooldown end
      elseif not suspected and size > 2 and count >= threshold and low > 0 and high - low <= SAME_MOMENT then
        pool.sus = {till = high, at = now, of = {}}
        for account in pairs(pool.hits) do pool.sus.of[account] = 1 end
      end
    end
  end
elseif broken then
  if hint >= 0 then
    local till = now + lengthened(hint < most and hint or most)
    if not s.cd or till > s.cd then s.cd, s.ca, s.cw = till, now, category end
    cooldown = s.cd - now
  else
    s.sn = (s.sn or 0) + 1
    s.sc = now + lengthened(backoff(500000, 4000000, s.sn))
  end
end
if category == 'ok' then
  s.sn, s.sc = nil, nil
  if not (s.ca and asked < s.ca) then s.cn = nil end
end

-- A wait that the provider asks for outranks the reset that came with it: what was used up is unknown again from then on.
if fresh then
  if hint >= 0 and cooldown > 0 and not from_reset then
    local till = now + cooldown
    for unit, remaining in pairs(fresh) do
      local q = about[unit]
      if q.v and remaining < (costs[unit] or 1) then
        if q.k == 'bucket' then q.b = till
        elseif q.e and q.e > till then q.e = till end
      end
    end
  end
  if resource then resource_store(s, resource, about, now) else s.q = about end
end

-- Breaker.
if (s.be or 0) == epoch then
  local expiry = s.pr and s.pr[lease]
  if s.bo then
    if probe == 1 and expiry and expiry > now then
      s.pr[lease] = nil
      if broken then
        s.bo, s.be, s.pr, s.pk, s.bm = now + open_for, epoch + 1, nil, nil, nil
        transition = 'opened'
      elseif category ~= 'unknown' then
        s.pk = (s.pk or 0) + 1
        if s.pk >= probes then
          s.bo, s.be, s.pr, s.pk, s.bf, s.bw, s.bm = nil, epoch + 1, nil, nil, nil, nil, nil
          transition = 'closed'
        end
      end
    end
  else
    local w = s.bw or {now, 0, 0, 0, 0}
    if now - w[1] >= window then
      local fresh = now - w[1] < 2 * window
      w = {now, 0, 0, fresh and w[2] or 0, fresh and w[3] or 0}
    end
    if broken then
      w[3] = w[3] + 1
      local recent = {}
      for _, time in ipairs(s.bf or {}) do
        if time > now - window then recent[#recent + 1] = time end
      end
      recent[#recent + 1] = now
      if #recent > failures then table.remove(recent, 1) end
      s.bf = recent
      -- A share of failures below a fifth is no outage, however busy the account is.
      local view = math.max(0, 1 - (now - w[1]) / window)
      local good, bad = w[2] + w[4] * view, w[3] + w[5] * view
      if #recent >= failures and bad >= 0.2 * (good + bad) then
        s.bo, s.be, s.pr, s.pk, s.bf, s.bm = now + open_for, epoch + 1, nil, nil, nil, nil
        w = nil
        transition = 'opened'
      end
    elseif category ~= 'unknown' then
      w[2] = w[2] + 1
    end
    s.bw = w
  end
end

if disables and not s.di then
  s.di, s.da, s.rf = 'auth', now, nil
  transition = 'disabled'
end

-- Concurrency: weighed after every twenty results or two seconds, whichever is later.
local before, after, error_share, use = 0, 0, 0, 0
if initial >= 0 then
  if category == 'ok' then s.cs = (s.cs or 0) + 1
  elseif broken or limited then s.cf = (s.cf or 0) + 1 end
  s.ct = s.ct or now
  local results = (s.cs or 0) + (s.cf or 0)
  if results >= 20 and now - s.ct >= 2000000 then
    local most_used = 0
    for j = 1, m do
      local spec = templates[j]
      local top = spec.top
      if spec.algo ~= 6 and top > 0 then
        local st = cell_read(KEYS[5 + j], spec, now)
        if not st.stale then
          cell_decide(st, spec, now, 0)
          if st.used / top > most_used then most_used = st.used / top end
        end
      end
    end
    for _, quotas in ipairs({s.q or {}, resource_quotas(s, ask.resource) or {}}) do
      for unit, q in pairs(quotas) do
        local level = costs[unit] and q.l and learned().level(q, now)
        if level and 1 - level / (q.c or q.l) > most_used then most_used = 1 - level / (q.c or q.l) end
      end
    end
    local bad = (s.cf or 0) / results
    local current = s.cc or initial
    local to = current
    if bad > 0.2 or most_used > 0.9 then
      to = math.max(floor_, math.floor(current * 0.8))
    elseif bad < 0.05 and most_used < 0.5 then
      to = math.min(ceiling, current + 1)
    end
    if to ~= current then
      before, after, error_share, use = current, to, math.floor(bad * 1000 + 0.5), math.floor(most_used * 1000 + 0.5)
      s.cc = to
    end
    s.cs, s.cf, s.ct = nil, nil, now
  end
end

state_write(KEYS[2], s)
if pool_changed then state_write(KEYS[3], pool) end
local kept = string.format('%.0f', cooldown)
redis.call('SET', KEYS[1], '=' .. category .. '\n' .. kept .. '\n' .. id, 'PX', '3600000')
return {0, category, kept, transition, before, after, id, error_share, use, probe}
