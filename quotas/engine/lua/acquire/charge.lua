-- What an admitted call writes: charges, the account's state, its lease. A chapter of acquire.lua.

-- Charge the caller's limits.
local function charge(first, bound, members, slot, reservation_key, reservation_life)
  local record = reservation_key and {}
  for i = 1, n do
    local spec = specs[i]
    local st = spec.state
    if st.allowed and spec.cost > 0 then
      local key = keys[first + i]
      local tag1, tag2, epoch = cell_write(key, st, spec, now, spec.cost, slot)
      if st.fresh then listed(keys[first + n + i], now, st.reset, members[10 + i], bound) end
      if record then record[#record + 1] = reserved(key, spec, members[10 + i], tag1, tag2, epoch) end
    elseif record and st.allowed and spec.algo ~= 6 then
      record[#record + 1] = reserved(keys[first + i], spec, members[10 + i], 0, 0, '')
    end
  end
  if record then
    local charged = {}
    for i = 1, #record do charged[i] = record[i][1] end
    call('SET', reservation_key, table.concat(charged, ' ') .. '\n' .. cmsgpack.pack(record), 'PX', reservation_life)
  end
end

-- Charge the chosen account, and write its state and the lease.
local function acquire(chosen, probe, lease, args)
  local a, b = accounts[chosen], base(chosen)
  local s = a.s
  local k = b + 1 + (keyed and 1 or 0)
  local names = keys[b + 1] .. ' ' .. keys[1] .. ' ' .. keys[2] .. ' ' .. (keyed and keys[b + 2] or '-')
  local tags = ''
  for j = 1, m do
    local spec = specs[n + j]
    local key = keys[k + j]
    names = names .. ' ' .. key
    if spec.cost > 0 then
      local tag1, tag2 = cell_write(key, a.cells[j], spec, now, spec.cost, lease)
      tags = tags .. pack('<dd', tag1, tag2)
    end
  end
  if s.nf == 0 then s.pe = nil end -- what was never settled is no longer in flight
  s.nf = s.nf + 1
  local ends = flight_add(s, now, life * 1000)
  local on_its_way = s.pe or {}
  s.pe = on_its_way
  for unit, cost in pairs(asked.costs) do
    local q = s.q and s.q[unit]
    if q then learned().take(q, cost, now) end
    if cost > 0 then
      local flying = asked.flying[unit]
      on_its_way[flying] = (on_its_way[flying] or 0) + cost
    end
  end
  for unit, q in pairs(a.own or NOTHING) do
    if asked.costs[unit] then learned().take(q, asked.costs[unit], now) end
  end
  if a.own then resource_store(s, asked.resource, a.own, now) end
  if probe > 0 then
    s.pr = s.pr or {}
    s.pr[lease] = now + life * 1000
  end
  -- What the settling has to look at in the pool's state, where there is anything (settle_lease.lua).
  local marks = probe > 0 and 1 or 0
  if pool.hits or pool.rp or pool.sus then marks = marks + 2 end
  if pool.sus and pool.sus.till > now then pool.tr = {lease, now + life * 1000} end
  local head = pack('<dddBB', now, ends, s.be or 0, marks, m)
  s.sq, s.lu = turn + 1, now
  state_write(keys[b + 1], s)
  if pool.tr and pool.tr[1] == lease then state_write(keys[1], pool) end
  local templates = n == 0 and args[5] or string.sub(args[5], 50 * n + 1)
  call('SET', keys[3], names .. '\n' .. head .. args[7] .. templates .. tags .. args[9], 'PX', life + 3600000)
end

-- Count for which reasons accounts were passed over.
local function count_skips()
  local counted = false
  for i = 1, size do
    local reason = accounts[i] and accounts[i].reason
    if reason and reason ~= 'disabled' then
      if call('HINCRBY', keys[2], 's:' .. owner_of(keys[base(i) + 1]) .. ':' .. reason, 1) == 1 then counted = true end
    end
  end
  if counted then call('PEXPIRE', keys[2], LIFE) end
end
