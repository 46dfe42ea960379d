-- include: cells/arithmetic.lua
--
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
