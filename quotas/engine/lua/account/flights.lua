-- include: account/state.lua
--
-- Calls in flight through one account: `fl` of its state, {end of their leases, how many, ...}. A library.

-- How many calls are in flight; those whose lease has expired are removed.
local function flights(s, now)
  local f = s.fl
  if not f then return 0 end
  local n, gone = 0, 0
  for i = 1, #f, 2 do
    if f[i] > now then n = n + f[i + 1] else gone = i + 1 end
  end
  if n == 0 then
    s.fl = nil
  elseif gone > 0 then
    local left = {}
    for i = gone + 1, #f do left[i - gone] = f[i] end
    s.fl = left
  end
  return n
end

-- One more call in flight, for `life` microseconds; returns the end that it is kept under. From 16 ends on, further
-- ones are rounded up to a sixteenth of a life, so that thousands of calls take the room of thirty.
local function flight_add(s, now, life)
  local ends = now + life
  local f = s.fl
  if not f then
    s.fl = {ends, 1}
    return ends
  end
  local size = #f
  if size >= 32 then
    local step = math.ceil(life / 16)
    ends = math.ceil(ends / step) * step
  end
  local i = size - 1
  while i > 0 and f[i] > ends do i = i - 2 end
  if i > 0 and f[i] == ends then
    f[i + 1] = f[i + 1] + 1
  else
    table.insert(f, i + 2, ends)
    table.insert(f, i + 3, 1)
  end
  return ends
end

-- The call that was kept under `ends` is over.
local function flight_end(s, ends)
  local f = s.fl
  if not f then return end
  for i = 1, #f, 2 do
    if f[i] == ends then
      if f[i + 1] > 1 then
        f[i + 1] = f[i + 1] - 1
      else
        table.remove(f, i)
        table.remove(f, i)
        if #f == 0 then s.fl = nil end
      end
      return
    end
  end
end
