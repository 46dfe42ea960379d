-- include: clock.lua
--
-- Enqueue or renew tickets in the queue of one counter: tickets in order of arrival, each with a
-- lease, so that a waiter that died delays the others for no longer than that.
--
-- KEYS  1       the queue: tickets by their position
--       2       its leases: tickets by when they end
-- ARGV  1       now in microseconds, or '' for the server's own time
--       2       how long a lease lives, in microseconds
--       3..     pairs: a ticket, and its position where it has one already ('' for a new one)
--
-- Returns {the position of each ticket.., the ticket that is first, the second one or '', how many tickets there are}. A
-- position is the moment of arrival, and never that of another ticket; with its old position a ticket comes back to where
-- it was, also where the server lost its memory.
--
-- Example: FCALL wait_enqueue 2 {sl}:w:~h {sl}:w:~h:e '' 3000000 a '' -> {'1800000000000000', 'a', '', 1}

-- at each call:

local now = clock(ARGV[1])
local lost = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
for _, ticket in ipairs(lost) do
  redis.call('ZREM', KEYS[1], ticket)
  redis.call('ZREM', KEYS[2], ticket)
end
local positions = {}
for i = 3, #ARGV, 2 do
  local ticket = ARGV[i]
  local position = redis.call('ZSCORE', KEYS[1], ticket)
  if position then
    position = tonumber(position)
  else
    position = tonumber(ARGV[i + 1])
    if not position then
      local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
      position = last and math.max(now, tonumber(last) + 1) or now
    end
    redis.call('ZADD', KEYS[1], string.format('%.0f', position), ticket)
  end
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[2]), ticket)
  positions[#positions + 1] = string.format('%.0f', position)
end
local life = math.floor(ARGV[2] / 500)
redis.call('PEXPIRE', KEYS[1], life)
redis.call('PEXPIRE', KEYS[2], life)
local leading = redis.call('ZRANGE', KEYS[1], 0, 1)
positions[#positions + 1] = leading[1] or ''
positions[#positions + 1] = leading[2] or ''
positions[#positions + 1] = redis.call('ZCARD', KEYS[1])
return positions
