-- Health, latency and counters. A library.

-- A recipient's refusal (auth that is not the account's) touches no health.
local function count_result(ended, statistics)
  local s, now, category, broken, latency = ended.state, ended.now, ended.category, ended.broken, ended.latency
  if category == 'ok' then
    health_move(s, now, 1)
  elseif broken or ended.disables then
    health_move(s, now, -1)
  elseif ended.limited and ended.scope ~= 1 and not ended.by_model and not ended.outdated then
    health_move(s, now, -0.5)
  end
  if latency >= 0 and (category == 'ok' or broken) then
    s.la = math.floor(s.la and s.la * 0.8 + latency * 0.2 or latency)
  end
  s.lu = now
  if category == 'ok' then
    s.on = (s.on or 0) + 1
  else
    call('HINCRBY', statistics, 'e:' .. ended.id .. ':' .. category, 1)
    if category ~= 'unknown' or ended.error ~= '' then s.le, s.lt, s.lk = ended.error, now, category end
    if not s.sx or now - s.sx > 86400000000 then
      call('PEXPIRE', statistics, LIFE)
      s.sx = now
    end
  end
end
