-- Refused credentials: when a refusal disables the account (see the rules in settle_lease.lua). A library.

local MOST_PATHS = 64

-- The method and path were refused to this account.
local function note_path(pool, path, id)
  local paths = pool.rp or {}
  if not paths[path] then
    local count, other = 0, nil
    for name in pairs(paths) do count, other = count + 1, name end
    if count >= MOST_PATHS then paths[other] = nil end
  end
  paths[path] = (not paths[path] or paths[path] == id) and id or '*'
  pool.rp = paths
end

-- Whether the account is disabled for its credential.
local function judge_credential(ended)
  local s, path, request = ended.state, ended.path, ended.request
  local disables = ended.refused == 2
  if ended.refused == 1 and not s.di then
    local first = s.rf -- {request, path, when it began}
    local entry = path ~= '' and pool_of(ended).rp and ended.pool.rp[path]
    disables = first and first[1] ~= request
      and (path == '' or first[2] ~= path or not entry or ended.size < 2)
    if not disables then
      s.rf = first or {request, path, ended.asked}
      if path ~= '' then
        note_path(pool_of(ended), path, ended.id)
        ended.pool_changed = true
      end
    end
  elseif ended.category == 'ok' and s.rf and ended.asked >= s.rf[3] then
    s.rf = nil
  end
  ended.disables = disables and not s.di
end
