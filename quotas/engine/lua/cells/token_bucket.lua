-- include: cells/arithmetic.lua
--
-- 3 token_bucket: use drains at p2 units per p3 microseconds (GCRA seen from below: what is stored is what is
-- missing, so a changed burst or rate applies at once). The true deficit is used - rem / p3.
-- Value: '<ddddd' used, rem, p3, time, until when the key is kept at least; the epoch.
local function token_bucket()
  local AT = 41
  -- Microseconds until `units` have drained.
  local function drain(st, spec, units)
    if units <= 0 or spec.p2 == 0 then return 0 end
    local q, r = muldiv(units, spec.p3, spec.p2)
    local wait = add(q + ceildiv(r - st.rem, spec.p2), st.ahead)
    return wait < FAR and wait or FAR
  end
  local function store(key, st, spec, now, lease)
    local whole = drain(st, spec, st.used)
    if now + whole <= st.kept then
      rewrite(key, pack('<ddddd', st.used, st.rem, spec.p3, now, st.kept))
    else -- for twice the time, so that the next charges need not move the end again
      local life = 2 * whole
      if life < SHORTEST then life = SHORTEST end
      keep(key, pack('<ddddd', st.used, st.rem, spec.p3, now, now + life) .. epoch_of(st, AT, lease, now), life)
    end
    return whole
  end
  return {
    epoch = AT,
    read = function(st, key, spec, now, v)
      st.retry, st.reset, st.mark = 0, 0, v
      if not v then
        st.used, st.fresh, st.rem, st.ahead, st.kept = 0, true, 0, 0, 0
        return
      end
      local used, rem, per, time, kept = unpack_('<ddddd', v)
      local rate, den = spec.p2, spec.p3
      if per ~= den then -- the rate was changed: keep the fraction
        rem = floor(rem / per * den)
        if rem >= den then rem = den - 1 end
      end
      local dt = now - time
      if dt > 0 and rate > 0 then
        if dt / den * rate > used * 1.0001 + 2 then
          used, rem = 0, 0
        else
          local q, r = muldiv(dt, rate, den)
          if r >= den - rem then r = r - (den - rem); q = q + 1 else r = r + rem end
          if q >= used then used, rem = 0, 0 else used, rem = used - q, r end
        end
      end
      st.used, st.rem, st.ahead, st.kept = used, rem, dt < 0 and -dt or 0, kept
      st.fresh = dt * 8 * rate > spec.limit * den
    end,
    decide = function(st, spec, now, cost)
      local used = st.used
      st.reset = drain(st, spec, used)
      if judge(st, spec.limit, spec.p1, used, cost) then return end
      st.retry = drain(st, spec, used - (spec.p1 - cost))
    end,
    write = function(key, st, spec, now, cost, lease)
      local used = add(st.used, cost)
      st.used, st.ahead = used, 0
      st.reset = store(key, st, spec, now, lease)
      local missing = st.rem > 0 and used - 1 or used
      if lease == '' then return missing, now end
      return missing, now, epoch_of(st, AT, lease, now)
    end,
    -- Without the charge the bucket would have continued to drain: what has drained since is not refunded.
    refund = function(key, st, spec, now, amount, deficit, time)
      local q, r = muldiv(now > time and now - time or 0, spec.p2, spec.p3)
      local back = deficit - q - (r > 0 and 1 or 0)
      if amount < back then back = amount end
      if st.used < back then back = st.used end
      if back <= 0 then return 0 end
      st.used, st.ahead = st.used - back, 0
      if st.used == 0 then
        call('DEL', key)
      else
        store(key, st, spec, now)
      end
      return back
    end,
  }
end
