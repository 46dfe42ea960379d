-- Take a ticket out of the queue of one counter.
--
-- KEYS  1       the queue: tickets by their position
--       2       its leases: tickets by when they end
-- ARGV  1       the ticket
--
-- Returns the ticket that is first now, for its owner to be called; nil where the queue is empty or another ticket was first.
--
-- Example: FCALL wait_dequeue 2 {sl}:w:~h {sl}:w:~h:e a -> 'b'

-- at each call:

local first = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if first ~= ARGV[1] then return nil end
return redis.call('ZRANGE', KEYS[1], 0, 0)[1]
