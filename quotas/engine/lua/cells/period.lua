-- include: cells/arithmetic.lua
--
-- 4 fixed_window and 5 calendar: one counter with its period inside the value, '<dd' start, used; the epoch. Fixed
-- windows begin at multiples of the window since the epoch. Calendar boundaries come from the caller, who knows time zones; which
-- one is in force says the server.
local function period(calendar)
  local AT = 17
  return {
    epoch = AT,
    read = function(st, key, spec, now, v)
      local start, stop
      st.retry, st.reset, st.mark = 0, 0, false
      if calendar then
        local p2, p3 = spec.p2, spec.p3
        start, stop = p2, p3
        if now < p2 then start, stop = spec.p1, p2 elseif now >= p3 then start, stop = p3, spec.p4 end
        st.stale = now < start or now >= stop
        if st.stale then
          st.used, st.allowed = 0, false
          return
        end
      else
        start = now - now % spec.p1
        stop = start + spec.p1
      end
      local used, fresh = 0, true
      if v then
        local s, u = unpack_('<dd', v)
        if s >= start then
          used, fresh, st.mark = u, false, v
          if s > start then -- time went back: that period continues
            start = s
            if not calendar then
              stop = s + spec.p1
            else
              local p2, p3, p4 = spec.p2, spec.p3, spec.p4
              stop = (s < p2 and p2) or (s < p3 and p3) or (s < p4 and p4) or s + (p3 - p2)
            end
          end
        end
      end
      st.used, st.fresh, st.start, st.stop = used, fresh, start, stop
    end,
    decide = function(st, spec, now, cost)
      if st.stale then return end
      local used = st.used
      if used > 0 then st.reset = st.stop - now end
      if judge(st, spec.limit, spec.limit, used, cost) then return end
      st.retry = st.stop - now
    end,
    write = function(key, st, spec, now, cost, lease)
      local used = add(st.used, cost)
      st.used, st.reset = used, st.stop - now
      local value = pack('<dd', st.start, used)
      if st.fresh then keep(key, value .. epoch_of(st, AT, lease, now), st.reset) else rewrite(key, value) end
      if lease == '' then return st.start, 0 end
      return st.start, 0, epoch_of(st, AT, lease, now)
    end,
    refund = function(key, st, spec, now, amount, start)
      if st.stale or start ~= st.start then return 0 end
      local back = st.used
      if amount < back then back = amount end
      if back == 0 then return 0 end
      if back == st.used then
        call('DEL', key)
      else
        keep(key, pack('<dd', st.start, st.used - back) .. epoch_of(st, AT), st.stop - now)
      end
      return back
    end,
  }
end
