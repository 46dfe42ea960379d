-- The present call: what its arguments and the stored states say. A chapter of acquire.lua.

local NEVER = -1
local LOOK_AGAIN = 1000000 -- while one call tries whether the accounts share a limit
local UNUSED_FOR = 60000000
local byte = string.byte

-- Facts of the present call, for the functions below; each call sets all of them before it uses any.
local keys, now, n, m, size, strategy, life, initial, figures
local keyed, paused, halted
local trial_until -- while a shared limit is suspected and one call is out to try it: when to look again
local specs -- n of the caller, then m templates
local early -- the templates for a priority that waits early; empty if it does not
local asked, share, probes
local raws, pool -- stored states of the accounts, state of the pool
local accounts -- what was found out about those that had to be looked at closer
local counters -- all accounts' counters, once they were read
local turn, stale, first_account, width, seed, weights, bound_to
local wanted = {} -- keys for an MGET
local NOTHING = {}

local function no_calendar() return {pack('<Bd', 2, now), pack('<BhdB', 0, -1, 0, 0)} end

local function base(i) return first_account + (i - 1) * width end

local function account(i)
  local a = accounts[i]
  if not a then
    a = {s = state_unpack(raws[i])}
    accounts[i] = a
  end
  return a
end

-- All accounts' counters at once, where more than one account is going to be weighed.
local function read_all()
  if m == 0 or counters or size * m > 4000 then return end
  local every = {}
  for i = 1, size do
    local last = base(i + 1)
    for j = 1, m do every[#every + 1] = keys[last - m + j] end
  end
  counters = call('MGET', unpack(every))
end

local function forbid(a, reason, ready)
  if a.ready == NEVER then return end
  if not a.reason or ready == NEVER or ready > a.ready then a.reason, a.ready = reason, ready end
end
