-- The call that ends through a lease, as one table that the chapters of settle_lease.lua (ended_*.lua) read and fill in:
-- what the lease's record and the arguments say, and what follows from the category. A library.

local LEAST = 1000000 -- a refusal without a hint is waited for, whatever the pool's default: jobs would go round
local NO_MARK = string.rep('\0', 8)

-- Where the charges of the call were made, by template.
local tag1, tag2 = {}, {}

-- The pool's state, read where it is needed.
local function pool_of(ended)
  local pool = ended.pool
  if not pool then
    pool = state_unpack(redis.call('GET', ended.pool_key))
    ended.pool = pool
  end
  return pool
end

-- The call by its record, its account's state and the arguments.
local function ended_call(raw, state, KEYS, ARGV)
  local hint, latency, random, scope, refused = struct.unpack('<dddBB', ARGV[2])
  local record = string.find(raw, '\n', 1, true) + 1
  local asked, ends, epoch, marks, m, default, most, failures, window, open_for, probes, floor_, ceiling, initial, size,
    specs = struct.unpack('<dddBBdddddddddd', raw, record)
  local tags = specs + 50 * m
  local templates = specs_of(string.sub(raw, specs, tags - 1))
  for j = 1, m do
    if templates[j].cost > 0 then
      tag1[j], tag2[j] = unpack_('<dd', raw, tags)
      tags = tags + 16
    end
  end
  local ask = ask_of(string.sub(raw, tags))
  local lease, category = ARGV[5], ARGV[3]
  local path, request = '', lease
  if #ARGV[2] > 26 then
    path, request = string.sub(ARGV[2], 27, 34), string.sub(ARGV[2], 35)
    if path == NO_MARK then path = '' end
    if request == NO_MARK then request = lease end
  end
  -- The account has got another credential since, or was enabled since: what the old one met says nothing of it.
  local outdated = state.rn and asked < state.rn
  if outdated or (state.ra and asked < state.ra) then refused = 0 end
  local limited = category == 'rate_limited' or category == 'quota_exhausted'
  local resource = ARGV[10] ~= '' and string.sub(ARGV[10], 2) or nil
  if resource == '' then resource = ask.resource end
  return {
    now = clock(ARGV[1]), state = state, id = owner_of(KEYS[2]), lease = lease, pool_key = KEYS[3],
    asked = asked, ends = ends, epoch = epoch, probe = marks % 2, looks_at_pool = marks >= 2,
    m = m, templates = templates, ask = ask, costs = ask.costs,
    default = math.max(default, math.min(LEAST, most)), most = most, size = size,
    failures = failures, window = window, open_for = open_for, probes = probes,
    least_in_flight = floor_, most_in_flight = ceiling, initial = initial,
    hint = hint, latency = latency, random = random, scope = scope, refused = refused, path = path, request = request,
    category = category, error = ARGV[4], outdated = outdated, limited = limited,
    broken = category == 'server' or category == 'network' or category == 'timeout', never = category == 'unused',
    unused = limited or category == 'unused' or category == 'auth' or category == 'validation',
    resource = resource,
    by_model = scope == 3 and limited and not outdated and (resource and resource ~= '' and resource or ask.model),
    transition = '', cooldown = 0, from_reset = false, used = nil, own = nil, about = nil, fresh = nil, others = 0,
    pool = nil, pool_changed = false, disables = false,
  }
end
