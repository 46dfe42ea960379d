-- include: clock.lua
-- include: cells/cells.lua
--
-- Settle a reservation with what was really used: refund the rest, or charge what came on top.
--
-- KEYS  1       the reservation's record
--       2..     its counters, as its first line names them
--       then    as many indexes of recent subjects, in the same order
-- ARGV  1       now in microseconds, or '' for the server's own time
--       2       '<d...' actual use per counter, -1 for "as reserved"
--       3       the reservation's id
--       4       length of an index
--       5       note to keep with the result (the caller's own words: units and actual use)
--
-- Returns nil for an unknown or expired reservation (nothing was changed), else the record's settled form:
-- '=' note '\n' '<d...' units refunded per counter (negative: charged in addition). The first call counts; later
-- ones get the same answer. Extra charges may overdraw. Slots of concurrency limits are released in any case.

-- at each call:

local record = redis.call('GET', KEYS[1])
if not record then return nil end
if string.sub(record, 1, 1) == '=' then return record end
local now = clock(ARGV[1])
local charges = cmsgpack.unpack(string.sub(record, string.find(record, '\n', 1, true) + 1))
local back = {}
local at, n = 1, #charges
-- Epochs begin with the id of the reservation that began them; what is charged in addition begins another one.
local own = string.reverse(ARGV[3])
for i, charge in ipairs(charges) do
  local key, packed, tag1, tag2, epoch, member = unpack(charge)
  local actual
  actual, at = struct.unpack('<d', ARGV[2], at)
  local spec = spec_unpack(packed, 1)
  local given = 0
  if key ~= KEYS[i + 1] then return redis.error_reply('ERR the reservation names other counters') end
  if spec.algo == 6 then
    cell_refund(key, spec, now, spec.cost, tag1, tag2, ARGV[3])
  elseif actual >= 0 and actual < spec.cost then
    given = cell_refund(key, spec, now, spec.cost - actual, tag1, tag2, ARGV[3], nil, epoch)
  elseif actual > spec.cost then
    local st = cell_read(key, spec, now)
    if not st.stale then
      cell_decide(st, spec, now, 0)
      cell_write(key, st, spec, now, actual - spec.cost, own)
      if member and st.fresh then listed(KEYS[1 + n + i], now, st.reset, member, tonumber(ARGV[4])) end
      given = spec.cost - actual
    end
  end
  back[i] = struct.pack('<d', given)
end
local settled = '=' .. ARGV[5] .. '\n' .. table.concat(back)
redis.call('SET', KEYS[1], settled, 'PX', 600000)
return settled
