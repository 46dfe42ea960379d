-- include: cells/arithmetic.lua
--
-- 2 sliding_window_counter: this window's count plus the last one's by the share of it that is still in view,
-- rounded up. Constant memory, approximate: up to nearly twice the limit in the worst true window.
-- Value: '<ddd' start, current, previous; the epoch.
local function sliding_window_counter()
  local AT = 25
  return {
    epoch = AT,
    read = function(st, key, spec, now, v)
      local window = spec.p1
      st.mark = false
      local start, current, previous, fresh = now - now % window, 0, 0, true
      if v then
        local s, c, p = unpack_('<ddd', v)
        if s >= start then
          start, current, previous, fresh, st.mark = s, c, p, false, v
        elseif s == start - window then
          previous, st.mark = c, v
        end
      end
      st.retry, st.reset, st.fresh = 0, 0, fresh
      st.start, st.current, st.previous, st.behind = start, current, previous, 0
    end,
    decide = function(st, spec, now, cost)
      local window, start, current, previous = spec.p1, st.start, st.current, st.previous
      local behind, part = 0, 0
      if previous > 0 then
        behind, part = muldiv(previous, window - (now > start and now - start or 0), window)
        if part > 0 then behind = behind + 1 end
        st.behind = behind
        st.reset = start + window - now
      end
      if current > 0 then st.reset = start + 2 * window - now end
      if judge(st, spec.limit, spec.limit, add(current, behind), cost) then return end
      local room = spec.limit - cost
      if room >= current then
        st.retry = start + window - muldiv(room - current, window, previous) - now
      else
        st.retry = start + 2 * window - muldiv(room, window, current) - now
      end
    end,
    write = function(key, st, spec, now, cost, lease)
      st.current = add(st.current, cost)
      st.used = add(st.current, st.behind)
      st.reset = st.start + 2 * spec.p1 - now
      local value = pack('<ddd', st.start, st.current, st.previous)
      if st.fresh then keep(key, value .. epoch_of(st, AT, lease, now), st.reset) else rewrite(key, value) end
      if lease == '' then return st.start, 0 end
      return st.start, 0, epoch_of(st, AT, lease, now)
    end,
    refund = function(key, st, spec, now, amount, start)
      local field
      if start == st.start then field = 'current'
      elseif start == st.start - spec.p1 then field = 'previous'
      else return 0 end
      local back = st[field]
      if amount < back then back = amount end
      if back == 0 then return 0 end
      st[field] = st[field] - back
      if st.current == 0 and st.previous == 0 then
        call('DEL', key)
      else
        local value = pack('<ddd', st.start, st.current, st.previous) .. epoch_of(st, AT)
        keep(key, value, st.start + 2 * spec.p1 - now)
      end
      return back
    end,
  }
end
