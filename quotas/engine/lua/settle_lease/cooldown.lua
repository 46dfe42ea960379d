-- Cooldowns after refusals and outages: of a model, of a key, of the account. A library.

-- A model's cooldown in the account's own state; of more than 64 the one that ends first is dropped.
local function refuse_model(s, model, till, now)
  local models = s.md or {}
  local count, first = 0, nil
  for name, ends in pairs(models) do
    if ends <= now then
      models[name] = nil
    else
      count = count + 1
      if not first or ends < models[first] then first = name end
    end
  end
  if count >= 64 and not models[model] then models[first] = nil end
  models[model] = math.max(models[model] or 0, till)
  s.md = models
  return models[model] - now
end

local function backoff(first, last, count)
  local wait = first
  for _ = 2, count do
    wait = wait * 2
    if wait >= last then break end
  end
  return wait < last and wait or last
end

-- A wait that is bounded by the pool's maximum and lengthened by at most a tenth.
local function lengthened(ended, wait)
  local most = ended.most
  return math.min(most, math.ceil((wait < most and wait or most) * (1 + 0.1 * ended.random)))
end

-- The model was refused: the account's other models may be requested.
local function cool_model(ended)
  local wait = ended.hint >= 0 and ended.hint or (ended.category == 'quota_exhausted' and 5 or 1) * ended.default
  ended.cooldown = refuse_model(ended.state, ended.by_model, ended.now + lengthened(ended, wait), ended.now)
end

-- The key (a chat) was refused. Many keys refused at once: it is the account after all.
local function cool_key(ended, key)
  local s, now = ended.state, ended.now
  local cooldown = lengthened(ended, ended.hint < 0 and ended.default or ended.hint)
  local known = tonumber(call('GET', key) or 0)
  if now + cooldown > known then
    call('SET', key, string.format('%.0f', now + cooldown), 'PX', string.format('%.0f', math.ceil(cooldown / 1000)))
  else
    cooldown = known - now
  end
  ended.cooldown = cooldown
  if not s.ks or now - s.ks > 10000000 then s.ks, s.kc = now, 0 end
  s.kc = s.kc + 1
  if s.kc >= 5 and ended.others > 0 and s.kc > ended.others then
    -- the wait of the key applies to the account too
    ended.scope, s.kc = 0, 0
    if ended.hint < 0 then ended.wait = ended.default end
  end
end

-- The account was refused.
local function cool_account(ended)
  local s, now, default = ended.state, ended.now, ended.default
  local wait = ended.wait or ended.hint
  if not (s.ca and ended.asked < s.ca) then s.cn = (s.cn or 0) + 1 end
  if wait < 0 then
    if ended.category == 'quota_exhausted' then wait = backoff(5 * default, 60 * default, s.cn)
    else wait = backoff(default, 5 * default, s.cn) end
  end
  local till = now + lengthened(ended, wait)
  if not (s.cd and s.cd > now) then s.ca = now end
  if not s.cd or till > s.cd then s.cd, s.cw = till, ended.category end
  ended.cooldown = s.cd - now
  note_refusal(ended, till)
end

-- An outage: a stated wait is a cooldown; without one the account is only passed over while another one is free.
local function cool_broken(ended)
  local s, now = ended.state, ended.now
  if ended.hint >= 0 then
    local till = now + lengthened(ended, ended.hint)
    if not s.cd or till > s.cd then s.cd, s.ca, s.cw = till, now, ended.category end
    ended.cooldown = s.cd - now
  else
    s.sn = (s.sn or 0) + 1
    s.sc = now + lengthened(ended, backoff(500000, 4000000, s.sn))
  end
end

local function cool_down(ended, key)
  local s = ended.state
  if ended.by_model then
    cool_model(ended)
  elseif ended.limited and not ended.outdated then
    if ended.scope == 1 and key then cool_key(ended, key) end
    if ended.scope ~= 1 or not key then cool_account(ended) end
  elseif ended.broken then
    cool_broken(ended)
  end
  if ended.category == 'ok' then
    s.sn, s.sc = nil, nil
    if not (s.ca and ended.asked < s.ca) then s.cn = nil end
  end
end
