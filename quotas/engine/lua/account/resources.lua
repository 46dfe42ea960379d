-- include: account/state.lua
--
-- Learned quotas of one model or resource, and units in flight by model. A library.

-- The quotas of one model or resource, unpacked; nil where none are known.
local function resource_quotas(s, resource)
  if resource == '' then return s.qn end
  local packed = s.qm and s.qm[resource]
  return packed and cmsgpack.unpack(sub(packed, 9))
end

-- Store them. Of more than RESOURCES the one that was used least recently is dropped.
local function resource_store(s, resource, quotas, now)
  if resource == '' then
    s.qn = quotas
    return
  end
  local all = s.qm or {}
  if not all[resource] then
    local count, oldest, name = 0, nil, nil
    for other, packed in pairs(all) do
      count = count + 1
      local used = unpack_head('<d', packed)
      if not oldest or used < oldest then oldest, name = used, other end
    end
    if count >= RESOURCES then all[name] = nil end
  end
  all[resource] = pack('<d', now) .. cmsgpack.pack(quotas)
  s.qm = all
end

-- Units in flight, of one model or ('nil') of all.
local function in_flight(s, unit, model)
  if not s.pe then return 0 end
  if model then return s.pe[model == '' and unit or unit .. '\n' .. model] or 0 end
  local sum, prefix = 0, unit .. '\n'
  for name, units in pairs(s.pe) do
    if name == unit or sub(name, 1, #prefix) == prefix then sum = sum + units end
  end
  return sum
end
