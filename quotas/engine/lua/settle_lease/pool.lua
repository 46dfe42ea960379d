-- What a call says of its pool: its success ends a suspicion and clears paths; several refusals until the same moment
-- raise one (see the rules in settle_lease.lua). A library.

local SAME_MOMENT = 1000000

-- What the pool's state says of this lease, and what its success says of the pool.
local function inform_pool(ended)
  if not ended.looks_at_pool then return end
  local now, lease, category, asked, path = ended.now, ended.lease, ended.category, ended.asked, ended.path
  local pool_changed
  local p = pool_of(ended)
  if p.tr and p.tr[1] == lease then p.tr, pool_changed = nil, true end
  local reached = category == 'ok' or category == 'validation'
  if p.sus and (p.sus.till <= now or (reached and asked >= p.sus.at)) then
    p.sus, p.tr, pool_changed = nil, nil, true
  end
  if p.hits then
    local first, last = now, 0
    for _, hit in pairs(p.hits) do
      if hit[1] < first then first = hit[1] end
      if hit[1] > last then last = hit[1] end
    end
    if now - last > 5000000 or (reached and asked >= first) then p.hits, pool_changed = nil, true end
  end
  if category == 'ok' and p.rp and p.rp[path] then
    p.rp[path], pool_changed = nil, true
    if not next(p.rp) then p.rp = nil end
  end
  if pool_changed then ended.pool_changed = true end
end

-- The account was refused until `till`. Several accounts refused at once until the same moment may share one limit.
local function note_refusal(ended, till)
  local now, hint, id, size, most = ended.now, ended.hint, ended.id, ended.size, ended.most
  local pool = pool_of(ended)
  ended.pool_changed = true
  local suspected = pool.sus
  if suspected and suspected.till <= now then suspected, pool.sus, pool.tr = nil, nil, nil end
  local hit_until = hint >= 0 and now + hint or 0
  if ended.scope == 2 and hint >= 0 then
    if not pool.cd or till > pool.cd then
      if not pool.cd or pool.cd <= now then ended.transition = 'pool_limited' end
      pool.cd = till
    end
  else
    pool.hits = pool.hits or {}
    pool.hits[id] = {now, hit_until}
    local count, low, high = 0, nil, nil
    for account, hit in pairs(pool.hits) do
      if now - hit[1] > 5000000 then
        pool.hits[account] = nil
      else
        count = count + 1
        if not low or hit[2] < low then low = hit[2] end
        if not high or hit[2] > high then high = hit[2] end
      end
    end
    local threshold = math.max(2, math.min(3, size), math.ceil(size / 2))
    if suspected and not suspected.of[id] and hit_until >= suspected.till - SAME_MOMENT
        and hit_until <= suspected.till + SAME_MOMENT + (now - suspected.at) then
      if not pool.cd or pool.cd <= now then ended.transition = 'pool_limited' end
      local shared = math.min(suspected.till, now + most)
      if not pool.cd or shared > pool.cd then pool.cd = shared end
      pool.sus, pool.tr, pool.hits = nil, nil, nil
    elseif count >= size and size >= 2 then -- no account is left to try: each cools down for itself
      if not (pool.all and pool.all > now) then ended.transition, pool.all = 'pool_limited', now + ended.cooldown end
    elseif not suspected and size > 2 and count >= threshold and low > 0 and high - low <= SAME_MOMENT then
      pool.sus = {till = high, at = now, of = {}}
      for account in pairs(pool.hits) do pool.sus.of[account] = 1 end
    end
  end
end
