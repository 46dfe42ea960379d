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
-- cell_read(key, spec, now, value, into) -> state    writes nothing; `value` is what GET or MGET said of the key, where
--                                                    the caller has it (one MGET over all counters is the fast way;
--                                                    it says false for a concurrency key, which is read apart);
--                                                    `into`: a table that only ever held states of this algorithm
-- cell_decide(state, spec, now, cost)                sets in the state:
--     allowed, impossible (cost > capacity), used, remaining, retry (microseconds until this cost would pass,
--     0 when it passes now, -1 never), reset (microseconds until whole again), stale (calendar: no boundary fits now),
--     fresh (first charge after a while: an index of subjects should hear of it)
-- cell_write(key, state, spec, now, cost, lease) -> tag1, tag2, epoch
--     charges, decided or not (settling may overdraw), updates used, remaining and reset; the tags say where the
--     charge went. `lease` is the id of the slot, and what a new counter's epoch is made of; '' where nothing is to be
--     refunded, and no epoch is returned. With cost 0 nothing is written.
-- cell_refund(key, spec, now, amount, tag1, tag2, lease, value, epoch) -> units given back; uses spec.state where there
--     is one; reads for itself where no value is given; never into a window that the charge was not in, never below
--     zero. Where `epoch` is given, never into a counter that was cleared and begun anew since the charge.
--
-- Epochs: each counter carries six bytes that were new when it was created, behind its figures. A counter that was
-- cleared and charged again has others, so that a refund can tell the two apart.
--
-- Use: read all, decide all, then write all. For example, per account of a pool:
--     local spec, next = spec_unpack(ARGV[2], at)
--     local state = cell_read(KEYS[i], spec, now)
--     cell_decide(state, spec, now, cost)
--     if state.allowed then cell_write(KEYS[i], state, spec, now, cost, lease) end
--
-- Specs may be kept between calls, and the tables that hold states may be used again: reading and deciding set every
-- field anew that is read later. What an earlier call left in them is never looked at.
--
-- Clocks: when the server's time goes back, what was charged "in the future" counts as charged now (nothing is given
-- away), and a window that had begun stays the present one until time catches up (the longest delay is the step).

local MAX = 9007199254740991
local MARGIN = 10000 -- milliseconds that a key outlives its meaning, for clock steps and late refunds
local RING = 60
local SHORTEST = 5000000 -- microseconds that a bucket is kept at least, lest its end be moved by each charge
local FAR = 3155760000000000 -- a century in microseconds: no longer wait is reported
local SPEC = '<BBdddddd'
local fmod, floor = math.fmod, math.floor
local pack, unpack_ = struct.pack, struct.unpack
local call = redis.call
local sub = string.sub
local EPOCH = 6 -- bytes

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

local function add(a, b)
  local s = a + b
  if s > MAX then return MAX end
  return s
end

-- Keep a value for as long as it means something: `us` microseconds from now.
local function keep(key, value, us)
  if us > 1e15 then us = 1e15 end
  call('SET', key, value, 'PX', floor(us / 1000) + MARGIN)
end

-- The same, where the key's end is right already: at half the time of a SET with an end.
local function rewrite(key, value) call('SETRANGE', key, 0, value) end

-- The epoch of the counter that was read, or a new one.
local function epoch_of(st, at, lease, now)
  if st.mark then return sub(st.mark, at, at + EPOCH - 1) end
  if lease and lease ~= '' then return sub(lease, 1, EPOCH) end
  return sub(pack('<d', now), 1, EPOCH)
end

-- What follows from use and capacity alone; false when the wait is still to be found.
local function judge(st, limit, capacity, used, cost)
  local free = capacity - used
  st.used, st.impossible, st.allowed = used, false, false
  st.remaining = free > 0 and limit > 0 and free or 0
  if cost == 0 or (cost <= free and limit > 0) then
    st.allowed = true
    return true
  end
  if limit == 0 then
    st.retry = -1
    return true
  end
  if cost > capacity then
    st.impossible, st.retry = true, -1
    return true
  end
  return false
end

-- 1 sliding_window: a conservative ring of 60 sub-buckets. A charge counts from its sub-bucket until that
-- sub-bucket's END lies a whole window back, so no true window ever holds more than the limit, and a unit comes back
-- at most 1/60 of the window late. Value: '<Bddd' width, newest sub-bucket, total, count in the newest; the epoch; then the counts
-- of those before it, oldest first, each of 2 or 8 bytes as the width says. While the newest stays the newest only the
-- head is read and written.
local function sliding_window()
  local HEAD, AT = '<Bddd', 26
  local SIZE = AT + EPOCH - 1
  local FORMS = {[2] = '<H', [8] = '<d'}

  -- The counts as a table from `first` on; what lies before the window is left out, what lies ahead (time went back) was
  -- charged by now.
  local function expand(st)
    if st.counts then return st.counts end
    local counts, form, at, v = {}, FORMS[st.width], SIZE + 1 + st.gone * st.width, st.value
    for i = 1, st.last - st.first do counts[i], at = unpack_(form, v, at) end
    counts[#counts + 1] = st.count
    st.counts = counts
    return counts
  end

  -- The value of a table of counts, the last of which is that of sub-bucket `last`.
  local function compact(epoch, last, counts, total)
    local width = total < 65536 and 2 or 8
    local parts, form = {pack(HEAD, width, last, total, counts[#counts]), epoch}, FORMS[width]
    for i = 1, #counts - 1 do parts[i + 2] = pack(form, counts[i]) end
    return table.concat(parts)
  end

  return {
    epoch = AT,
    read = function(st, key, spec, now, v)
      local b = (now - now % spec.width) / spec.width
      st.mark = false
      st.retry, st.reset, st.bucket, st.counts = 0, 0, b, nil
      st.fresh, st.last, st.first, st.total, st.count, st.gone, st.value = true, b, b, 0, 0, 0, false
      if not v then return end
      local width, last, total, count = unpack_(HEAD, v)
      if last < b - RING then return end
      st.mark = v
      local first, gone = last - (#v - SIZE) / width, 0
      st.fresh = floor(last / 8) ~= floor(b / 8)
      if first < b - RING then
        local at, passed = SIZE + 1, 0
        gone = b - RING - first
        for _ = 1, gone do
          passed, at = unpack_(FORMS[width], v, at)
          total = total - passed
        end
        first = first + gone
      end
      st.width, st.last, st.first, st.total, st.count, st.gone, st.value = width, last, first, total, count, gone, v
      if last > b then -- time went back
        local counts = expand(st)
        if first > b then first = b end
        local kept, ahead = {}, 0
        for n = 1, #counts do
          if st.first + n - 1 < b then kept[n] = counts[n] else ahead = ahead + counts[n] end
        end
        kept[b - first + 1] = ahead
        st.counts, st.first, st.last, st.count, st.value = kept, first, b, ahead, false
      end
    end,
    decide = function(st, spec, now, cost)
      local total, width = st.total, spec.width
      if total > 0 then
        local newest = st.last
        if st.count == 0 then
          local counts = expand(st)
          local i = #counts
          while counts[i] == 0 do i = i - 1 end
          newest = st.first + i - 1
        end
        st.reset = (newest + RING + 1) * width - now
      end
      if judge(st, spec.limit, spec.limit, total, cost) then return end
      local counts, need, freed, i = expand(st), total - (spec.limit - cost), 0, 1
      while true do
        freed = freed + counts[i]
        if freed >= need then break end
        i = i + 1
      end
      st.retry = (st.first + i - 1 + RING + 1) * width - now
    end,
    write = function(key, st, spec, now, cost, lease)
      local b, last, total = st.bucket, st.last, add(st.total, cost)
      local more = total - st.total
      st.used, st.reset = total, (b + RING + 1) * spec.width - now
      if not st.value and not st.counts then -- there was nothing
        keep(key, pack(HEAD, 2, b, total, more) .. epoch_of(st, AT, lease, now), st.reset)
      elseif st.value and last == b then
        rewrite(key, pack(HEAD, st.width, b, total, st.count + more))
      elseif st.value and (st.width == 8 or st.count < 65536) then
        local older = sub(st.value, SIZE + 1 + st.gone * st.width)
        local before = pack(FORMS[st.width], st.count) .. string.rep('\0', (b - last - 1) * st.width)
        local head = pack(HEAD, st.width, b, total, more) .. epoch_of(st, AT, lease, now)
        keep(key, head .. older .. before, st.reset)
      else
        local counts = expand(st)
        for n = last + 1, b do counts[n - st.first + 1] = 0 end
        counts[#counts] = counts[#counts] + more
        keep(key, compact(epoch_of(st, AT, lease, now), b, counts, total), st.reset)
      end
      st.total, st.counts, st.value = total, nil, false
      if lease == '' then return b, 0 end
      return b, 0, epoch_of(st, AT, lease, now)
    end,
    refund = function(key, st, spec, now, amount, bucket)
      if bucket < st.first or bucket > st.last or st.total == 0 then return 0 end
      local counts, at = expand(st), bucket - st.first + 1
      local back = counts[at]
      if amount < back then back = amount end
      if back == 0 then return 0 end
      counts[at] = counts[at] - back
      if st.total == back then
        call('DEL', key)
      else
        local epoch = epoch_of(st, AT)
        keep(key, compact(epoch, st.last, counts, st.total - back), (st.last + 1 + RING) * spec.width - now)
      end
      return back
    end,
  }
end

-- 2 sliding_window_counter: this window's count plus the last one's by the share of it that is still in view,
-- rounded up. Constant memory, approximate: up to nearly twice the limit in the worst true window.
-- Value: '<ddd' start, current, previous; the epoch.
local function sliding_window_counter()
  local AT = 25
  return {
    epoch = AT,
    read = function(st, key, spec, now, v)
      local window = spec.p1
      st.mark = false
      local start, current, previous, fresh = now - now % window, 0, 0, true
      if v then
        local s, c, p = unpack_('<ddd', v)
        if s >= start then
          start, current, previous, fresh, st.mark = s, c, p, false, v
        elseif s == start - window then
          previous, st.mark = c, v
        end
      end
      st.retry, st.reset, st.fresh = 0, 0, fresh
      st.start, st.current, st.previous, st.behind = start, current, previous, 0
    end,
    decide = function(st, spec, now, cost)
      local window, start, current, previous = spec.p1, st.start, st.current, st.previous
      local behind, part = 0, 0
      if previous > 0 then
        behind, part = muldiv(previous, window - (now > start and now - start or 0), window)
        if part > 0 then behind = behind + 1 end
        st.behind = behind
        st.reset = start + window - now
      end
      if current > 0 then st.reset = start + 2 * window - now end
      if judge(st, spec.limit, spec.limit, add(current, behind), cost) then return end
      local room = spec.limit - cost
      if room >= current then
        st.retry = start + window - muldiv(room - current, window, previous) - now
      else
        st.retry = start + 2 * window - muldiv(room, window, current) - now
      end
    end,
    write = function(key, st, spec, now, cost, lease)
      st.current = add(st.current, cost)
      st.used = add(st.current, st.behind)
      st.reset = st.start + 2 * spec.p1 - now
      local value = pack('<ddd', st.start, st.current, st.previous)
      if st.fresh then keep(key, value .. epoch_of(st, AT, lease, now), st.reset) else rewrite(key, value) end
      if lease == '' then return st.start, 0 end
      return st.start, 0, epoch_of(st, AT, lease, now)
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
        local value = pack('<ddd', st.start, st.current, st.previous) .. epoch_of(st, AT)
        keep(key, value, st.start + 2 * spec.p1 - now)
      end
      return back
    end,
  }
end

-- 3 token_bucket: use drains at p2 units per p3 microseconds (GCRA seen from below: what is stored is what is
-- missing, so a changed burst or rate holds at once). The true deficit is used - rem / p3.
-- Value: '<ddddd' used, rem, p3, time, until when the key is kept at least; the epoch.
local function token_bucket()
  local AT = 41
  -- Microseconds until `units` have drained.
  local function drain(st, spec, units)
    if units <= 0 or spec.p2 == 0 then return 0 end
    local q, r = muldiv(units, spec.p3, spec.p2)
    local wait = add(q + ceildiv(r - st.rem, spec.p2), st.ahead)
    return wait < FAR and wait or FAR
  end
  local function store(key, st, spec, now, lease)
    local whole = drain(st, spec, st.used)
    if now + whole <= st.kept then
      rewrite(key, pack('<ddddd', st.used, st.rem, spec.p3, now, st.kept))
    else -- for twice the time, so that the next charges need not move the end again
      local life = 2 * whole
      if life < SHORTEST then life = SHORTEST end
      keep(key, pack('<ddddd', st.used, st.rem, spec.p3, now, now + life) .. epoch_of(st, AT, lease, now), life)
    end
    return whole
  end
  return {
    epoch = AT,
    read = function(st, key, spec, now, v)
      st.retry, st.reset, st.mark = 0, 0, v
      if not v then
        st.used, st.fresh, st.rem, st.ahead, st.kept = 0, true, 0, 0, 0
        return
      end
      local used, rem, per, time, kept = unpack_('<ddddd', v)
      local rate, den = spec.p2, spec.p3
      if per ~= den then -- the rate was changed: keep the fraction
        rem = floor(rem / per * den)
        if rem >= den then rem = den - 1 end
      end
      local dt = now - time
      if dt > 0 and rate > 0 then
        if dt / den * rate > used * 1.0001 + 2 then
          used, rem = 0, 0
        else
          local q, r = muldiv(dt, rate, den)
          if r >= den - rem then r = r - (den - rem); q = q + 1 else r = r + rem end
          if q >= used then used, rem = 0, 0 else used, rem = used - q, r end
        end
      end
      st.used, st.rem, st.ahead, st.kept = used, rem, dt < 0 and -dt or 0, kept
      st.fresh = dt * 8 * rate > spec.limit * den
    end,
    decide = function(st, spec, now, cost)
      local used = st.used
      st.reset = drain(st, spec, used)
      if judge(st, spec.limit, spec.p1, used, cost) then return end
      st.retry = drain(st, spec, used - (spec.p1 - cost))
    end,
    write = function(key, st, spec, now, cost, lease)
      local used = add(st.used, cost)
      st.used, st.ahead = used, 0
      st.reset = store(key, st, spec, now, lease)
      local missing = st.rem > 0 and used - 1 or used
      if lease == '' then return missing, now end
      return missing, now, epoch_of(st, AT, lease, now)
    end,
    -- Without the charge the bucket would have gone on draining: what has drained since is not given back.
    refund = function(key, st, spec, now, amount, deficit, time)
      local q, r = muldiv(now > time and now - time or 0, spec.p2, spec.p3)
      local back = deficit - q - (r > 0 and 1 or 0)
      if amount < back then back = amount end
      if st.used < back then back = st.used end
      if back <= 0 then return 0 end
      st.used, st.ahead = st.used - back, 0
      if st.used == 0 then
        call('DEL', key)
      else
        store(key, st, spec, now)
      end
      return back
    end,
  }
end

-- 4 fixed_window and 5 calendar: one counter with its period inside the value, '<dd' start, used; the epoch. Fixed
-- windows begin at multiples of the window since the epoch. Calendar boundaries come from the caller, who knows time zones; which
-- one is in force says the server.
local function period(calendar)
  local AT = 17
  return {
    epoch = AT,
    read = function(st, key, spec, now, v)
      local start, stop
      st.retry, st.reset, st.mark = 0, 0, false
      if calendar then
        local p2, p3 = spec.p2, spec.p3
        start, stop = p2, p3
        if now < p2 then start, stop = spec.p1, p2 elseif now >= p3 then start, stop = p3, spec.p4 end
        st.stale = now < start or now >= stop
        if st.stale then
          st.used, st.allowed = 0, false
          return
        end
      else
        start = now - now % spec.p1
        stop = start + spec.p1
      end
      local used, fresh = 0, true
      if v then
        local s, u = unpack_('<dd', v)
        if s >= start then
          used, fresh, st.mark = u, false, v
          if s > start then -- time went back: that period goes on
            start = s
            if not calendar then
              stop = s + spec.p1
            else
              local p2, p3, p4 = spec.p2, spec.p3, spec.p4
              stop = (s < p2 and p2) or (s < p3 and p3) or (s < p4 and p4) or s + (p3 - p2)
            end
          end
        end
      end
      st.used, st.fresh, st.start, st.stop = used, fresh, start, stop
    end,
    decide = function(st, spec, now, cost)
      if st.stale then return end
      local used = st.used
      if used > 0 then st.reset = st.stop - now end
      if judge(st, spec.limit, spec.limit, used, cost) then return end
      st.retry = st.stop - now
    end,
    write = function(key, st, spec, now, cost, lease)
      local used = add(st.used, cost)
      st.used, st.reset = used, st.stop - now
      local value = pack('<dd', st.start, used)
      if st.fresh then keep(key, value .. epoch_of(st, AT, lease, now), st.reset) else rewrite(key, value) end
      if lease == '' then return st.start, 0 end
      return st.start, 0, epoch_of(st, AT, lease, now)
    end,
    refund = function(key, st, spec, now, amount, start)
      if st.stale or start ~= st.start then return 0 end
      local back = st.used
      if amount < back then back = amount end
      if back == 0 then return 0 end
      if back == st.used then
        call('DEL', key)
      else
        keep(key, pack('<dd', st.start, st.used - back) .. epoch_of(st, AT), st.stop - now)
      end
      return back
    end,
  }
end

-- 6 concurrency: a sorted set of slots by the time at which they expire, so that nothing can leak. A cost of n takes
-- n slots: lease, lease:2, lease:3 ...
local function concurrency()
  local text = string.format
  return {
    read = function(st, key, spec, now)
      local used, last = call('ZCOUNT', key, text('(%.0f', now), '+inf'), 0
      if used > 0 then last = tonumber(call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]) end
      st.used, st.retry, st.reset, st.key, st.last = used, 0, used > 0 and last - now or 0, key, last
      st.fresh = used == 0 or now % 16 == 0
    end,
    decide = function(st, spec, now, cost)
      if judge(st, spec.limit, spec.limit, st.used, cost) then return end
      local nth = st.used - (spec.limit - cost) - 1
      local slot = call('ZRANGEBYSCORE', st.key, text('(%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', nth, 1)
      st.retry = tonumber(slot[2]) - now
    end,
    write = function(key, st, spec, now, cost, lease)
      local expires = now + spec.p1
      call('ZREMRANGEBYSCORE', key, '-inf', now)
      call('ZADD', key, expires, lease)
      for i = 2, cost do call('ZADD', key, expires, lease .. ':' .. text('%.0f', i)) end
      st.used = st.used + cost
      if st.last < expires then st.last = expires end
      st.reset = st.last - now
      call('PEXPIRE', key, floor(st.reset / 1000) + MARGIN)
      return cost, 0
    end,
    refund = function(key, st, spec, now, amount, slots, _, lease)
      local gone = call('ZREM', key, lease)
      for i = 2, slots do gone = gone + call('ZREM', key, lease .. ':' .. text('%.0f', i)) end
      return gone
    end,
  }
end

-- List the subject that was charged, among its policy's recent ones.
local function listed(index, now, reset, member, bound)
  if call('ZADD', index, now, member) == 1 then call('ZREMRANGEBYRANK', index, 0, -1 - bound) end
  call('PEXPIRE', index, floor(reset / 500) + 3600000)
end

-- One counter's part of a reservation, as settle.lua reads it. What cost nothing is part of it too: its actual use is
-- charged when the reservation is settled.
local function reserved(counter, spec, member, tag1, tag2, epoch)
  local packed = pack(SPEC, spec.algo, 0, spec.limit, spec.cost, spec.p1, spec.p2, spec.p3, spec.p4)
  return {counter, packed, tag1, tag2, epoch or '', member}
end

local cells = {
  sliding_window(), sliding_window_counter(), token_bucket(), period(false), period(true), concurrency(),
}

-- The spec at `at` in the packed string, and where the next one begins.
local function spec_unpack(packed, at)
  local algo, shadow, limit, cost, p1, p2, p3, p4, after = unpack_(SPEC, packed, at)
  return {
    algo = algo, shadow = shadow, limit = limit, cost = cost, p1 = p1, p2 = p2, p3 = p3, p4 = p4,
    cell = cells[algo], width = algo == 1 and ceildiv(p1, RING), top = algo == 3 and p1 or limit,
  }, after
end

local function cell_read(key, spec, now, value, into)
  if value == nil and spec.algo ~= 6 then value = call('GET', key) end
  local st = into or {}
  spec.cell.read(st, key, spec, now, value)
  return st
end

local function cell_decide(st, spec, now, cost) spec.cell.decide(st, spec, now, cost) end

local function cell_write(key, st, spec, now, cost, lease)
  if cost == 0 then return 0, 0 end
  local tag1, tag2, epoch = spec.cell.write(key, st, spec, now, cost, lease)
  local free = spec.top - st.used
  st.remaining = free > 0 and free or 0
  return tag1, tag2, epoch
end

local function cell_refund(key, spec, now, amount, tag1, tag2, lease, value, epoch)
  local st, at = cell_read(key, spec, now, value, spec.state), spec.cell.epoch
  if epoch and epoch ~= '' and at and not (st.mark and sub(st.mark, at, at + EPOCH - 1) == epoch) then return 0 end
  return spec.cell.refund(key, st, spec, now, amount, tag1, tag2, lease)
end
