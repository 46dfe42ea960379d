-- The call that ends through a lease, as one table that the chapters of settle_lease.lua (settle_lease/*.lua) read and fill in:
-- what the lease's record and the arguments say, and what follows from the category. A library.

local LEAST = 1000000 -- a refusal without a hint is waited for, whatever the pool's default: jobs would go round
local NO_MARK = string.rep('\0', 8)

-- Where the charges of the call were made, by template.
local tag1, tag2 = {}, {}

-- The present call: one table for all calls, so that none has to make it. Each call sets every field; those that are
-- not known yet are false.
local the_call = {}

-- The pool's state, read where it is needed.
local function pool_of(ended)
  local pool = ended.pool
  if not pool then
    pool = state_unpack(call('GET', ended.pool_key))
    ended.pool = pool
  end
  return pool
end

-- The call by its record, its account's state and the arguments.
local function ended_call(raw, state, KEYS, ARGV)
  local ended = the_call
  local hint, latency, random, scope, refused = unpack_('<dddBB', ARGV[2])
  local record = string.find(raw, '\n', 1, true) + 1
  local asked, ends, epoch, marks, m, default, most, failures, window, open_for, probes, floor_, ceiling, initial, size,
    specs = unpack_('<dddBBdddddddddd', raw, record)
  local tags = specs + 50 * m
  local templates = specs_of(sub(raw, specs, tags - 1))
  for j = 1, m do
    if templates[j].cost > 0 then
      tag1[j], tag2[j] = unpack_('<dd', raw, tags)
      tags = tags + 16
    end
  end
  local ask = ask_of(sub(raw, tags))
  local lease, category = ARGV[5], ARGV[3]
  local path, request = '', lease
  if #ARGV[2] > 26 then
    path, request = sub(ARGV[2], 27, 34), sub(ARGV[2], 35)
    if path == NO_MARK then path = '' end
    if request == NO_MARK then request = lease end
  end
  -- The account has got another credential since, or was enabled since: what the old one met says nothing of it.
  local outdated = state.rn and asked < state.rn
  if outdated or (state.ra and asked < state.ra) then refused = 0 end
  local limited = category == 'rate_limited' or category == 'quota_exhausted'
  local resource = ARGV[10] ~= '' and sub(ARGV[10], 2) or nil
  if resource == '' then resource = ask.resource end
  ended.now, ended.state, ended.id, ended.lease = clock(ARGV[1]), state, owner_of(KEYS[2]), lease
  ended.pool_key, ended.asked, ended.ends, ended.epoch = KEYS[3], asked, ends, epoch
  ended.probe, ended.looks_at_pool, ended.m, ended.templates = marks % 2, marks >= 2, m, templates
  ended.ask, ended.costs, ended.default, ended.most = ask, ask.costs, math.max(default, math.min(LEAST, most)), most
  ended.size, ended.failures, ended.window, ended.open_for = size, failures, window, open_for
  ended.probes, ended.least_in_flight, ended.most_in_flight, ended.initial = probes, floor_, ceiling, initial
  ended.hint, ended.latency, ended.random, ended.scope = hint, latency, random, scope
  ended.refused, ended.path, ended.request, ended.category = refused, path, request, category
  ended.error, ended.outdated, ended.limited = ARGV[4], outdated, limited
  ended.broken = category == 'server' or category == 'network' or category == 'timeout'
  ended.never = category == 'unused'
  ended.unused = limited or category == 'unused' or category == 'auth' or category == 'validation'
  ended.resource = resource or false
  ended.by_model = scope == 3 and limited and not outdated and (resource and resource ~= '' and resource or ask.model)
  ended.transition, ended.cooldown, ended.from_reset, ended.used = '', 0, false, false
  ended.own, ended.about, ended.fresh, ended.wait = false, false, false, false
  ended.others, ended.pool, ended.pool_changed, ended.disables = 0, false, false, false
  return ended
end
