-- include: clock.lua
-- include: account/flights.lua
-- include: account/health.lua
-- include: account/learned.lua
--
-- What an operator (or a rebuild from SQL) does to one account.
--
-- KEYS  1 the account's state
-- ARGV  1 now in microseconds, or '' for the server's own time
--       2 clear_cooldown (also a pool's) | trip | close | disable | refuse | enable | renew | cool | restore
--       3 trip: '<d' how long it stays open, in microseconds, then why; disable: why; cool: '<d' how long,
--         then why; restore: '<dddB' cooldown left,
--         open for, health (-1: none), whether it is disabled, then why it is that or open
--
-- Returns 1 if that changed anything, else 0. `restore` only adds: what is live wins over what was stored. `renew`: the
-- account has another credential, so that nothing is known any more but what an operator said; calls that began before
-- say nothing about it. `refuse`: its credential was refused through another account; who disabled it before counts. `cool`: its credential was refused through another account; a longer cooldown stays.

-- at each call:

local now = clock(ARGV[1])
local action, argument = ARGV[2], ARGV[3]
local s = state_unpack(redis.call('GET', KEYS[1]))
local changed = 0

if action == 'clear_cooldown' then
  if (s.cd and s.cd > now) or (s.sc and s.sc > now) or s.md or s.sus then changed = 1 end
  s.cd, s.ca, s.cw, s.cn, s.sc, s.sn, s.md = nil, nil, nil, nil, nil, nil, nil
  s.sus, s.tr, s.hits = nil, nil, nil
  -- A quota that the provider states to be used up would block it just as well; the next answer states it anew.
  for _, quotas in ipairs({s.q or {}, s.qn or {}}) do
    for unit, q in pairs(quotas) do
      if q.v and q.v < 1 then quotas[unit], changed = nil, 1 end
    end
  end
  for name in pairs(s.qm or {}) do
    for _, q in pairs(resource_quotas(s, name)) do
      if q.v and q.v < 1 then s.qm[name], changed = nil, 1 end
    end
  end
elseif action == 'trip' then
  s.bo, s.be, s.pr, s.pk = now + struct.unpack('<d', argument), (s.be or 0) + 1, nil, nil
  s.bm = string.sub(argument, 9)
  changed = 1
elseif action == 'close' then
  if s.bo then changed = 1 end
  s.bo, s.be, s.pr, s.pk, s.bf, s.bw, s.bm = nil, (s.be or 0) + 1, nil, nil, nil, nil, nil
elseif action == 'disable' then
  if not s.di then changed = 1 end
  s.di, s.da = argument, now
elseif action == 'refuse' then
  if not s.di then s.di, s.da, changed = 'auth', now, 1 end
elseif action == 'enable' then
  if s.di then changed = 1 end
  s.di, s.da, s.rf, s.ra = nil, nil, nil, now
elseif action == 'renew' then
  changed = 1
  if s.di == 'auth' then s.di, s.da = nil, nil end
  s.cd, s.ca, s.cw, s.cn, s.sc, s.sn, s.md = nil, nil, nil, nil, nil, nil, nil
  s.q, s.qm, s.x, s.rf, s.h, s.ht = nil, nil, nil, nil, nil, nil
  s.rn, s.ra = now, now
elseif action == 'cool' then
  local till = now + struct.unpack('<d', argument)
  if not s.cd or till > s.cd then
    if not (s.cd and s.cd > now) then s.ca = now end
    s.cd, s.cw, changed = till, string.sub(argument, 9), 1
  end
elseif action == 'restore' then
  local cooldown, open, health, disabled, at = struct.unpack('<dddB', argument)
  local why = string.sub(argument, at)
  if cooldown > 0 and not s.cd then s.cd, s.ca, s.cw, changed = now + cooldown, now, 'restored', 1 end
  if open > 0 and not s.bo then s.bo, s.be, s.bm, changed = now + open, (s.be or 0) + 1, why, 1 end
  if health >= 0 and not s.h then s.h, s.ht, changed = health, now, 1 end
  if disabled == 1 and not s.di then s.di, s.da, changed = why, now, 1 end
else
  return redis.error_reply('ERR no action ' .. action)
end

if changed == 1 then state_write(KEYS[1], s) end
return changed
