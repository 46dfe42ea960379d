-- Cells: how one limit keeps its use, one table of plain functions per algorithm.
--
-- A library, included by check.lua, settle.lua and whoever else has limits to charge. It has no KEYS and ARGV of its
-- own. Everything is whole numbers in doubles (exact up to 2^53): units, and microseconds since the epoch.
--
-- A spec is a table (see spec_unpack, which reads the 50 bytes that wire.py packs, little-endian '<BBdddddd'):
--   algo    1 sliding_window  2 sliding_window_counter  3 token_bucket  4 fixed_window  5 calendar  6 concurrency
--   shadow  1 when the limit only reports
--   limit   units per window; 0 refuses every cost but 0 (what is not limited has no cell)
--   cost    units asked
--   p1..p4  1, 2, 4: p1 = window
--           3: p1 = capacity, refill = p2 units per p3 microseconds (in lowest terms)
--           5: four ascending boundaries of periods, the present one being p2..p3
--           6: p1 = how long a lease lives
--
-- cell_read(key, spec, now) -> state                 reads Redis, writes nothing
-- cell_decide(state, spec, now, cost)                sets in the state:
--     allowed, impossible (cost > capacity), used, remaining, retry (microseconds until this cost would pass,
--     0 when it passes now, -1 never), reset (microseconds until whole again), stale (calendar: no boundary fits now)
-- cell_write(key, state, spec, now, cost, lease) -> tag1, tag2
--     charges, decided or not (settling may overdraw), updates used, remaining and reset; the tags say where the
--     charge went. `lease` is the id of the slot, for concurrency only. With cost 0 nothing is written.
-- cell_refund(key, spec, now, amount, tag1, tag2, lease) -> units given back
--     reads for itself; never into a window that the charge was not in, never below zero.
--
-- Use: read all, decide all, then write all. For example, per account of a pool:
--     local state = cell_read(KEYS[i], spec, now)
--     cell_decide(state, spec, now, cost)
--     if state.allowed then cell_write(KEYS[i], state, spec, now, cost, lease) end
--
-- Clocks: when the server's time goes back, what was charged "in the future" counts as charged now (nothing is given
-- away), and a window that had begun stays the present one until time catches up (the longest delay is the step).

local MAX = 9007199254740991
local MARGIN = 10000 -- milliseconds that a key outlives its meaning, for clock steps and late refunds
local RING = 60
local SPEC = '<BBdddddd'
local fmod, floor = math.fmod, math.floor
local pack, unpack_ = struct.pack, struct.unpack
local call = redis.call

-- a * b / c as (quotient, remainder), exact for whole a, b, c < 2^53; saturates at 2^53 - 1.
local function muldiv(a, b, c)
  local p = a * b
  if p <= MAX then
    local r = fmod(p, c)
    return (p - r) / c, r
  end
  if a / c * b >= MAX then return MAX, 0 end
  -- Double and add: the running remainder stays below c, so nothing ever leaves 2^53.
  local br = fmod(b, c)
  local bq = (b - br) / c
  local q, r, bit = 0, 0, 1
  while bit * 2 <= a do bit = bit * 2 end
  while bit >= 1 do
    q = q * 2
    if r >= c - r then r = r - (c - r); q = q + 1 else r = r + r end
    if a >= bit then
      a = a - bit
      q = q + bq
      if br > 0 and r >= c - br then r = r - (c - br); q = q + 1 else r = r + br end
    end
    bit = bit / 2
  end
  return q, r
end

-- The least whole number at or above n / d, for whole n (of any sign) and d > 0.
local function ceildiv(n, d)
  if n <= 0 then
    n = -n
    return -((n - fmod(n, d)) / d)
  end
  local r = fmod(n, d)
  if r > 0 then return (n - r) / d + 1 end
  return n / d
end

local function ttl(us) return string.format('%.0f', floor(us / 1000) + MARGIN) end

local function add(a, b)
  local s = a + b
  if s > MAX then return MAX end
  return s
end

-- What follows from use and capacity alone; true when the cost fits.
local function judge(st, limit, capacity, used, cost)
  st.used = used
  local free = capacity - used
  st.remaining = free > 0 and free or 0
  st.impossible = false
  st.retry = 0
  if limit == 0 then
    st.remaining = 0
    st.allowed = cost == 0
    if cost > 0 then st.retry = -1 end
    return true
  end
  if cost == 0 or cost <= free then
    st.allowed = true
    return true
  end
  st.allowed = false
  if cost > capacity then
    st.impossible = true
    st.retry = -1
    return true
  end
  return false
end

local cells = {}

-- 1 sliding_window: a conservative ring of 60 sub-buckets. A charge counts from its sub-bucket until that
-- sub-bucket's END lies a whole window back, so no true window ever holds more than the limit, and a unit comes back
-- at most 1/60 of the window late. Value: msgpack {first sub-bucket, total, count, count, ...}, up to the newest.
cells[1] = {
  read = function(key, spec, now)
    local width = ceildiv(spec.p1, RING)
    local b = floor(now / width)
    local st = {width = width, bucket = b, total = 0, first = b, n = 0, fresh = true}
    local v = call('GET', key)
    if not v then return st end
    local ring = cmsgpack.unpack(v)
    local first, total, size = ring[1], ring[2], #ring
    local last = first + size - 3
    st.stored = true
    if last < b - RING then return st end
    st.fresh = last ~= b
    if last > b then -- time went back: what lies ahead was charged by now
      local kept, ahead = {first < b and first or b, total}, 0
      for i = 3, size do
        if first + i - 3 < b then kept[i] = ring[i] else ahead = ahead + ring[i] end
      end
      kept[#kept + 1] = ahead
      ring, first, size = kept, kept[1], #kept
    end
    local lo = 3
    while lo < size and (first < b - RING or ring[lo] == 0) do
      total = total - ring[lo]
      lo = lo + 1
      first = first + 1
    end
    st.ring, st.lo, st.n, st.first, st.total = ring, lo, size - lo + 1, first, total
    return st
  end,
  decide = function(st, spec, now, cost)
    local total = st.total
    local ring, lo, width = st.ring, st.lo, st.width
    if total > 0 then
      local i = lo + st.n - 1
      while ring[i] == 0 do i = i - 1 end
      st.reset = (st.first + i - lo + RING + 1) * width - now
    else
      st.reset = 0
    end
    if judge(st, spec.limit, spec.limit, total, cost) then return end
    local need, freed, i = total - (spec.limit - cost), 0, lo
    while true do
      freed = freed + ring[i]
      if freed >= need then break end
      i = i + 1
    end
    st.retry = (st.first + i - lo + RING + 1) * width - now
  end,
  write = function(key, st, spec, now, cost)
    local b, ring = st.bucket, st.ring
    if st.n == 0 then
      ring = {b, 0, 0}
    else
      local lo = st.lo
      if lo > 3 then
        local moved = {0, 0}
        for i = lo, lo + st.n - 1 do moved[i - lo + 3] = ring[i] end
        ring = moved
      end
      ring[1] = st.first
      for i = st.first + #ring - 2, b do ring[i - st.first + 3] = 0 end
    end
    local size = #ring
    ring[size] = add(ring[size], cost)
    st.total = add(st.total, cost)
    ring[2] = st.total
    st.used = st.total
    st.reset = (b + RING + 1) * st.width - now
    call('SET', key, cmsgpack.pack(ring), 'PX', ttl(st.reset))
    return b, 0
  end,
  refund = function(key, st, spec, now, amount, bucket)
    local at = bucket - st.first
    if at < 0 or at >= st.n then return 0 end
    local ring, lo = st.ring, st.lo
    local back = ring[lo + at]
    if amount < back then back = amount end
    if back == 0 then return 0 end
    local kept = {st.first, st.total - back}
    for i = lo, lo + st.n - 1 do kept[i - lo + 3] = ring[i] end
    kept[at + 3] = kept[at + 3] - back
    if kept[2] == 0 then
      call('DEL', key)
    else
      call('SET', key, cmsgpack.pack(kept), 'PX', ttl((st.first + st.n + RING) * st.width - now))
    end
    return back
  end,
}

-- 2 sliding_window_counter: this window's count plus the last one's by the share of it that is still in view,
-- rounded up. Constant memory, approximate: up to nearly twice the limit in the worst true window.
-- Value: '<ddd' start, current, previous.
cells[2] = {
  read = function(key, spec, now)
    local window = spec.p1
    local start = now - fmod(now, window)
    local st = {start = start, current = 0, previous = 0, fresh = true}
    local v = call('GET', key)
    if v then
      local s, current, previous = unpack_('<ddd', v)
      st.stored = true
      if s >= start then
        st.start, st.current, st.previous, st.fresh = s, current, previous, false
      elseif s == start - window then
        st.previous = current
      end
    end
    return st
  end,
  decide = function(st, spec, now, cost)
    local window, start, current, previous = spec.p1, st.start, st.current, st.previous
    local view = window - (now > start and now - start or 0)
    local q, r = muldiv(previous, view, window)
    if r > 0 then q = q + 1 end
    st.reset = 0
    if current > 0 then st.reset = start + 2 * window - now
    elseif previous > 0 then st.reset = start + window - now end
    st.behind = q
    if judge(st, spec.limit, spec.limit, add(current, q), cost) then return end
    local room = spec.limit - cost - current
    if room >= 0 then
      st.retry = start + window - muldiv(room, window, previous) - now
    else
      st.retry = start + 2 * window - muldiv(spec.limit - cost, window, current) - now
    end
  end,
  write = function(key, st, spec, now, cost)
    st.current = add(st.current, cost)
    st.used = add(st.current, st.behind or 0)
    st.reset = st.start + 2 * spec.p1 - now
    call('SET', key, pack('<ddd', st.start, st.current, st.previous), 'PX', ttl(st.reset))
    return st.start, 0
  end,
  refund = function(key, st, spec, now, amount, start)
    local field
    if start == st.start then field = 'current'
    elseif start == st.start - spec.p1 then field = 'previous'
    else return 0 end
    local back = st[field]
    if amount < back then back = amount end
    if back == 0 then return 0 end
    st[field] = st[field] - back
    if st.current == 0 and st.previous == 0 then
      call('DEL', key)
    else
      call('SET', key, pack('<ddd', st.start, st.current, st.previous), 'PX', ttl(st.start + 2 * spec.p1 - now))
    end
    return back
  end,
}

-- 3 token_bucket: use drains at p2 units per p3 microseconds (GCRA seen from below: what is stored is what is
-- missing, so a changed burst or rate holds at once). The true deficit is used - rem / p3.
-- Value: '<dddd' used, rem, p3, time.
cells[3] = {
  read = function(key, spec, now)
    local st = {used = 0, rem = 0, ahead = 0, fresh = true}
    local v = call('GET', key)
    if not v then return st end
    local used, rem, per, time = unpack_('<dddd', v)
    st.stored = true
    local rate, den = spec.p2, spec.p3
    if per ~= den then -- the rate was changed: keep the fraction
      rem = floor(rem / per * den)
      if rem >= den then rem = den - 1 end
    end
    local dt = now - time
    if dt < 0 then
      st.ahead = -dt
    elseif dt > 0 and rate > 0 then
      if dt / den * rate > used * 1.0001 + 2 then
        used, rem = 0, 0
      else
        local q, r = muldiv(dt, rate, den)
        if r >= den - rem then r = r - (den - rem); q = q + 1 else r = r + rem end
        if q >= used then used, rem = 0, 0 else used, rem = used - q, r end
      end
    end
    st.used, st.rem, st.fresh = used, rem, used == 0 or dt * 64 > spec.p1 * den / rate
    return st
  end,
  -- Microseconds until `units` have drained.
  drain = function(st, spec, units)
    if units <= 0 or spec.p2 == 0 then return 0 end
    local q, r = muldiv(units, spec.p3, spec.p2)
    return add(q + ceildiv(r - st.rem, spec.p2), st.ahead)
  end,
  decide = function(st, spec, now, cost)
    st.reset = cells[3].drain(st, spec, st.used)
    if judge(st, spec.limit, spec.p1, st.used, cost) then return end
    st.retry = cells[3].drain(st, spec, st.used - (spec.p1 - cost))
  end,
  write = function(key, st, spec, now, cost)
    st.used, st.ahead = add(st.used, cost), 0
    st.reset = cells[3].drain(st, spec, st.used)
    call('SET', key, pack('<dddd', st.used, st.rem, spec.p3, now), 'PX', ttl(st.reset < 1e15 and st.reset or 1e15))
    return st.rem > 0 and st.used - 1 or st.used, now
  end,
  -- Without the charge the bucket would have gone on draining: what has drained since is not given back.
  refund = function(key, st, spec, now, amount, deficit, time)
    local dt = now > time and now - time or 0
    local q, r = muldiv(dt, spec.p2, spec.p3)
    local back = deficit - q - (r > 0 and 1 or 0)
    if amount < back then back = amount end
    if st.used < back then back = st.used end
    if back <= 0 then return 0 end
    st.used = st.used - back
    if st.used == 0 then
      call('DEL', key)
    else
      st.ahead = 0
      local whole = cells[3].drain(st, spec, st.used)
      call('SET', key, pack('<dddd', st.used, st.rem, spec.p3, now), 'PX', ttl(whole < 1e15 and whole or 1e15))
    end
    return back
  end,
}

-- What fixed_window and calendar share: one counter with its period inside the value, '<dd' start, used.
local function period_decide(st, spec, now, cost)
  if st.stale then return end
  st.reset = st.used > 0 and st.stop - now or 0
  if judge(st, spec.limit, spec.limit, st.used, cost) then return end
  st.retry = st.stop - now
end

local function period_write(key, st, spec, now, cost)
  st.used = add(st.used, cost)
  st.reset = st.stop - now
  call('SET', key, pack('<dd', st.start, st.used), 'PX', ttl(st.reset))
  return st.start, 0
end

local function period_refund(key, st, spec, now, amount, start)
  if st.stale or start ~= st.start then return 0 end
  local back = st.used
  if amount < back then back = amount end
  if back == 0 then return 0 end
  if back == st.used then
    call('DEL', key)
  else
    call('SET', key, pack('<dd', st.start, st.used - back), 'PX', ttl(st.stop - now))
  end
  return back
end

-- 4 fixed_window: windows begin at multiples of the window since the epoch.
cells[4] = {
  read = function(key, spec, now)
    local start = now - fmod(now, spec.p1)
    local st = {start = start, used = 0, fresh = true}
    local v = call('GET', key)
    if v then
      local s, used = unpack_('<dd', v)
      st.stored = true
      if s >= start then st.start, st.used, st.fresh = s, used, false end
    end
    st.stop = st.start + spec.p1
    return st
  end,
  decide = period_decide,
  write = period_write,
  refund = period_refund,
}

-- 5 calendar: the boundaries come from the caller, who knows time zones; which one is in force says the server.
cells[5] = {
  read = function(key, spec, now)
    local p1, p2, p3, p4 = spec.p1, spec.p2, spec.p3, spec.p4
    if now < p1 or now >= p4 then return {stale = true, used = 0} end
    local start, stop = p2, p3
    if now < p2 then start, stop = p1, p2 elseif now >= p3 then start, stop = p3, p4 end
    local st = {start = start, used = 0, fresh = true}
    local v = call('GET', key)
    if v then
      local s, used = unpack_('<dd', v)
      st.stored = true
      if s >= start then
        st.used, st.fresh = used, false
        if s > start then
          start = s
          stop = (s < p2 and p2) or (s < p3 and p3) or (s < p4 and p4) or s + (p3 - p2)
        end
      end
    end
    st.start, st.stop = start, stop
    return st
  end,
  decide = period_decide,
  write = period_write,
  refund = period_refund,
}

-- 6 concurrency: a sorted set of slots by the time at which they expire, so that nothing can leak. A cost of n takes
-- n slots: lease, lease:2, lease:3 ...
cells[6] = {
  read = function(key, spec, now)
    local used = call('ZCOUNT', key, string.format('(%.0f', now), '+inf')
    local st = {key = key, used = used, reset = 0, fresh = used == 0 or fmod(now, 16) == 0}
    if used > 0 then
      st.stored = true
      st.last = tonumber(call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
      st.reset = st.last - now
    end
    return st
  end,
  decide = function(st, spec, now, cost)
    if judge(st, spec.limit, spec.limit, st.used, cost) then return end
    local nth = st.used - (spec.limit - cost) - 1
    local slot = call('ZRANGEBYSCORE', st.key, string.format('(%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', nth, 1)
    st.retry = tonumber(slot[2]) - now
  end,
  write = function(key, st, spec, now, cost, lease)
    local expires = now + spec.p1
    local score = string.format('%.0f', expires)
    call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
    call('ZADD', key, score, lease)
    for i = 2, cost do call('ZADD', key, score, lease .. ':' .. string.format('%.0f', i)) end
    st.used = st.used + cost
    if not st.last or st.last < expires then st.last = expires end
    st.reset = st.last - now
    call('PEXPIRE', key, ttl(st.reset))
    return cost, 0
  end,
  refund = function(key, st, spec, now, amount, slots, _, lease)
    local gone = call('ZREM', key, lease)
    for i = 2, slots do gone = gone + call('ZREM', key, lease .. ':' .. string.format('%.0f', i)) end
    return gone
  end,
}

-- The spec at `at` in the packed string, and where the next one begins.
local function spec_unpack(packed, at)
  local spec, next = {}, nil
  spec.algo, spec.shadow, spec.limit, spec.cost, spec.p1, spec.p2, spec.p3, spec.p4, next = unpack_(SPEC, packed, at)
  return spec, next
end

local function cell_read(key, spec, now) return cells[spec.algo].read(key, spec, now) end

local function cell_decide(st, spec, now, cost) cells[spec.algo].decide(st, spec, now, cost) end

local function cell_write(key, st, spec, now, cost, lease)
  if cost == 0 then return 0, 0 end
  local tag1, tag2 = cells[spec.algo].write(key, st, spec, now, cost, lease)
  local free = (spec.algo == 3 and spec.p1 or spec.limit) - st.used
  st.remaining = free > 0 and free or 0
  return tag1, tag2
end

local function cell_refund(key, spec, now, amount, tag1, tag2, lease)
  local cell = cells[spec.algo]
  return cell.refund(key, cell.read(key, spec, now), spec, now, amount, tag1, tag2, lease)
end
