-- The one clock: microseconds since the epoch, by the server, unless a test passes its own time.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
