-- Whole-number arithmetic, storing values with an end, and what follows from use and capacity alone. A library.

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
