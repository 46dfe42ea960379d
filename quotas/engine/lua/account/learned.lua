-- include: account/resources.lua
--
-- Quotas that providers stated: what is left of them now, and until when a call has to wait. A library.

-- What is done with learned quotas: {level, wait, pause, take}, made only where there are any.
local made_learned
local function learned()
  if made_learned then return made_learned end

  local function refills(q) return q.k == 'bucket' and q.l and q.w end

  -- The level of a learned quota now: nil while it says nothing (no remainder known, its window is over, it is stale).
  local function level_of(q, now)
    if not q.v or (q.b and now >= q.b) then return nil end
    local age = now - q.a
    if age > STALE and age > (q.w or 0) and not (q.e and now < q.e) then return nil end
    if q.k == 'bucket' then
      if not q.l or not q.w then
        if q.e and now >= q.e then return nil end
        return q.v
      end
      local v = q.v + (now > q.t and now - q.t or 0) * q.l / q.w
      local c = q.c or q.l
      return v < c and v or c
    end
    if q.e and now >= q.e then
      if not q.l then return nil end
      return q.l - (q.n and now < q.n + (q.w or MINUTE) and q.u or 0)
    end
    return q.v
  end

  -- When the level is at least `need`; nil: now, or not known. `need` is not above the bucket's capacity.
  local function reached(q, level, need, now)
    if level + 1e-6 >= need then return nil end
    local till
    if refills(q) then till = now + math.ceil((need - level) * q.w / q.l)
    elseif q.e and now < q.e then till = q.e
    elseif q.n then till = q.n + (q.w or MINUTE) end
    if till and q.b and q.b < till then till = q.b end
    return till
  end

  -- Whether a learned quota has room for `cost`: nil, or until when it has not (-1 never: above the limit that the
  -- provider states). `more`: what a call may take beyond its estimate, as far as is known; a tenth of the bucket is
  -- kept for that at the most. A capacity that was only concluded forbids nothing for ever: a cost above it passes
  -- when the bucket is full.
  local function wait_of(q, cost, now, more)
    local level = level_of(q, now)
    if not level or cost == 0 then return nil end
    if q.l and cost > q.l and level < cost then return -1 end
    local need = cost
    if refills(q) then
      local top = q.c or q.l
      local margin = top >= 40 and 2 or 0 -- calls arrive with jitter: an exactly empty bucket refuses some
      if more then margin = margin + math.min(more, floor(top / 10)) end
      need = cost > top and top or cost + margin > top and cost or cost + margin
    end
    return reached(q, level, need, now)
  end

  -- The same for a priority that leaves a share of the quota to others. A cost above its own share passes when the
  -- quota is whole.
  local function pause_of(q, cost, now, share)
    local level = q.l and level_of(q, now)
    if not level or cost == 0 then return nil end
    local top = q.c or q.l
    return reached(q, level, math.min(top, top * (1 - share) + cost), now)
  end

  -- Charge a learned quota (a negative cost refunds).
  local function take(q, cost, now)
    if q.b and now >= q.b then -- the first call after an explicit wait; those behind it go by the level again
      q.b = nil
      local level = level_of(q, now)
      if level and level < cost then q.v, q.t = cost, now end
    end
    local level = level_of(q, now)
    if not level then return end
    if refills(q) then
      q.v, q.t = level - cost, now
    elseif q.e and now >= q.e then -- the next window, unseen: counted here until an answer states it
      if not q.n or now >= q.n + (q.w or MINUTE) then q.n, q.u = now, 0 end
      q.u = math.min(q.l, q.u + cost)
    else
      q.v = level - cost
    end
  end

  -- A quota as an answer states it. Times are microseconds, -1 stands for what it does not state; `flying`: units of
  -- calls that this answer has not counted, as far as is known.
  local function state(limit, remaining, reset, per, bucket, asked, now, flying)
    local q = {a = asked, t = now, k = bucket and 'bucket' or 'window'}
    if limit >= 0 then q.l = limit end
    if per > 0 then q.w = per end
    if reset >= 0 then q.e = now + reset
    elseif per > 0 and not bucket then q.e = now + per end -- at the latest
    if remaining < 0 then return q end
    q.v = remaining - flying
    if bucket and q.l and q.l > 0 then
      local used = limit - remaining
      -- It is full after `reset`, so that is how fast it refills, unless too little is missing to conclude from it.
      if reset > 0 and used >= limit / 10 and reset * limit / used > (q.w or 0) then q.w = reset * limit / used end
      -- Full sooner than its rate allows: the bucket seems to be smaller than a whole window's limit.
      local top = q.w and reset >= 0 and remaining + reset * limit / q.w or limit
      if top > 0 and top < limit then q.c = math.max(1, top) end
    end
    return q
  end

  made_learned = {level = level_of, wait = wait_of, pause = pause_of, take = take, state = state}
  return made_learned
end
