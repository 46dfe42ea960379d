-- include: cells/arithmetic.lua
-- include: cells/sliding_window.lua
-- include: cells/sliding_window_counter.lua
-- include: cells/token_bucket.lua
-- include: cells/period.lua
-- include: cells/concurrency.lua
--
-- Cells: how one limit keeps its use, one table of plain functions per algorithm.
--
-- A library, included by check.lua, settle.lua and other scripts that charge limits. It has no KEYS and ARGV of its
-- own. Everything is whole numbers in doubles (exact up to 2^53): units, and microseconds since the epoch.
--
-- A spec is a table (see spec_unpack, which reads the 50 bytes that wire.py packs, little-endian '<BBdddddd'):
--   algo    1 sliding_window  2 sliding_window_counter  3 token_bucket  4 fixed_window  5 calendar  6 concurrency
--   shadow  1 when the limit only reports
--   limit   units per window; 0 refuses every cost but 0 (what is not limited has no cell)
--   cost    units to charge
--   p1..p4  1, 2, 4: p1 = window
--           3: p1 = capacity, refill = p2 units per p3 microseconds (in lowest terms)
--           5: four ascending boundaries of periods, the present one being p2..p3
--           6: p1 = how long a lease lives
--
-- cell_read(key, spec, now, value, into) -> state    writes nothing; `value` is what GET or MGET said of the key, where
--                                                    the caller has it (one MGET over all counters is fastest;
--                                                    it says false for a concurrency key, which is read apart);
--                                                    `into`: a table that was only used for states of this algorithm
-- cell_decide(state, spec, now, cost)                sets in the state:
--     allowed, impossible (cost > capacity), used, remaining, retry (microseconds until this cost would pass,
--     0 when it passes now, -1 never), reset (microseconds until whole again), stale (calendar: no boundary fits now),
--     fresh (first charge after a while: to be added to the index of subjects)
-- cell_write(key, state, spec, now, cost, lease) -> tag1, tag2, epoch
--     charges, decided or not (settling may overdraw), updates used, remaining and reset; the tags say where the
--     charge went. `lease` is the id of the slot, and what a new counter's epoch is made of; '' where nothing is to be
--     refunded, and no epoch is returned. With cost 0 nothing is written.
-- cell_refund(key, spec, now, amount, tag1, tag2, lease, value, epoch) -> units refunded; uses spec.state where there
--     is one; reads for itself where no value is given; never into a window that the charge was not in, never below
--     zero. Where `epoch` is given, never into a counter that was cleared and begun anew since the charge.
--
-- Epochs: each counter carries six bytes that were new when it was created, behind its figures. A counter that was
-- cleared and charged again has others, so that a refund can distinguish the two.
--
-- Use: read all, decide all, then write all. For example, per account of a pool:
--     local spec, next = spec_unpack(ARGV[2], at)
--     local state = cell_read(KEYS[i], spec, now)
--     cell_decide(state, spec, now, cost)
--     if state.allowed then cell_write(KEYS[i], state, spec, now, cost, lease) end
--
-- Specs may be kept between calls, and the tables of states may be used again: reading and deciding set every
-- field anew that is read later. What an earlier call left in them is never looked at.
--
-- Clocks: when the server's time goes back, what was charged "in the future" counts as charged now (nothing is given
-- away), and a window that had begun stays the present one until time catches up (the longest delay is the step).

-- List the subject that was charged, among its policy's recent ones.
local function listed(index, now, reset, member, bound)
  if call('ZADD', index, now, member) == 1 then call('ZREMRANGEBYRANK', index, 0, -1 - bound) end
  call('PEXPIRE', index, floor(reset / 500) + 3600000)
end

-- One counter's part of a reservation, as settle.lua reads it. What cost nothing is part of it too: its actual use is
-- charged when the reservation is settled.
local function reserved(counter, spec, member, tag1, tag2, epoch)
  local packed = pack(SPEC, spec.algo, 0, spec.limit, spec.cost, spec.p1, spec.p2, spec.p3, spec.p4)
  return {counter, packed, tag1, tag2, epoch or '', member}
end

local cells = {
  sliding_window(), sliding_window_counter(), token_bucket(), period(false), period(true), concurrency(),
}

-- The spec at `at` in the packed string, and where the next one begins.
local function spec_unpack(packed, at)
  local algo, shadow, limit, cost, p1, p2, p3, p4, after = unpack_(SPEC, packed, at)
  return {
    algo = algo, shadow = shadow, limit = limit, cost = cost, p1 = p1, p2 = p2, p3 = p3, p4 = p4,
    cell = cells[algo], width = algo == 1 and ceildiv(p1, RING), top = algo == 3 and p1 or limit,
  }, after
end

local function cell_read(key, spec, now, value, into)
  if value == nil and spec.algo ~= 6 then value = call('GET', key) end
  local st = into or {}
  spec.cell.read(st, key, spec, now, value)
  return st
end

local function cell_decide(st, spec, now, cost) spec.cell.decide(st, spec, now, cost) end

local function cell_write(key, st, spec, now, cost, lease)
  if cost == 0 then return 0, 0 end
  local tag1, tag2, epoch = spec.cell.write(key, st, spec, now, cost, lease)
  local free = spec.top - st.used
  st.remaining = free > 0 and free or 0
  return tag1, tag2, epoch
end

local function cell_refund(key, spec, now, amount, tag1, tag2, lease, value, epoch)
  local st, at = cell_read(key, spec, now, value, spec.state), spec.cell.epoch
  if epoch and epoch ~= '' and at and not (st.mark and sub(st.mark, at, at + EPOCH - 1) == epoch) then return 0 end
  return spec.cell.refund(key, st, spec, now, amount, tag1, tag2, lease)
end
