-- include: cells/arithmetic.lua
--
-- 1 sliding_window: a conservative ring of 60 sub-buckets. A charge counts from its sub-bucket until that
-- sub-bucket's END lies a whole window back, so no true window ever contains more than the limit, and a unit comes back
-- at most 1/60 of the window late. Value: '<Bddd' width, newest sub-bucket, total, count in the newest; the epoch; then the counts
-- of those before it, oldest first, each of 2 or 8 bytes as the width says. While the newest stays the newest only the
-- head is read and written.
local function sliding_window()
  local HEAD, AT = '<Bddd', 26
  local SIZE = AT + EPOCH - 1
  local FORMS = {[2] = '<H', [8] = '<d'}

  -- The counts as a table from `first` on; what lies before the window is left out, what lies ahead (time went back) was
  -- charged by now.
  local function expand(st)
    if st.counts then return st.counts end
    local counts, form, at, v = {}, FORMS[st.width], SIZE + 1 + st.gone * st.width, st.value
    for i = 1, st.last - st.first do counts[i], at = unpack_(form, v, at) end
    counts[#counts + 1] = st.count
    st.counts = counts
    return counts
  end

  -- The value of a table of counts, the last of which is that of sub-bucket `last`.
  local function compact(epoch, last, counts, total)
    local width = total < 65536 and 2 or 8
    local parts, form = {pack(HEAD, width, last, total, counts[#counts]), epoch}, FORMS[width]
    for i = 1, #counts - 1 do parts[i + 2] = pack(form, counts[i]) end
    return table.concat(parts)
  end

  return {
    epoch = AT,
    read = function(st, key, spec, now, v)
      local b = (now - now % spec.width) / spec.width
      st.mark = false
      st.retry, st.reset, st.bucket, st.counts = 0, 0, b, nil
      st.fresh, st.last, st.first, st.total, st.count, st.gone, st.value = true, b, b, 0, 0, 0, false
      if not v then return end
      local width, last, total, count = unpack_(HEAD, v)
      if last < b - RING then return end
      st.mark = v
      local first, gone = last - (#v - SIZE) / width, 0
      st.fresh = floor(last / 8) ~= floor(b / 8)
      if first < b - RING then
        local at, passed = SIZE + 1, 0
        gone = b - RING - first
        for _ = 1, gone do
          passed, at = unpack_(FORMS[width], v, at)
          total = total - passed
        end
        first = first + gone
      end
      st.width, st.last, st.first, st.total, st.count, st.gone, st.value = width, last, first, total, count, gone, v
      if last > b then -- time went back
        local counts = expand(st)
        if first > b then first = b end
        local kept, ahead = {}, 0
        for n = 1, #counts do
          if st.first + n - 1 < b then kept[n] = counts[n] else ahead = ahead + counts[n] end
        end
        kept[b - first + 1] = ahead
        st.counts, st.first, st.last, st.count, st.value = kept, first, b, ahead, false
      end
    end,
    decide = function(st, spec, now, cost)
      local total, width = st.total, spec.width
      if total > 0 then
        local newest = st.last
        if st.count == 0 then
          local counts = expand(st)
          local i = #counts
          while counts[i] == 0 do i = i - 1 end
          newest = st.first + i - 1
        end
        st.reset = (newest + RING + 1) * width - now
      end
      if judge(st, spec.limit, spec.limit, total, cost) then return end
      local counts, need, freed, i = expand(st), total - (spec.limit - cost), 0, 1
      while true do
        freed = freed + counts[i]
        if freed >= need then break end
        i = i + 1
      end
      st.retry = (st.first + i - 1 + RING + 1) * width - now
    end,
    write = function(key, st, spec, now, cost, lease)
      local b, last, total = st.bucket, st.last, add(st.total, cost)
      local more = total - st.total
      st.used, st.reset = total, (b + RING + 1) * spec.width - now
      if not st.value and not st.counts then -- there was nothing
        keep(key, pack(HEAD, 2, b, total, more) .. epoch_of(st, AT, lease, now), st.reset)
      elseif st.value and last == b then
        rewrite(key, pack(HEAD, st.width, b, total, st.count + more))
      elseif st.value and (st.width == 8 or st.count < 65536) then
        local older = sub(st.value, SIZE + 1 + st.gone * st.width)
        local before = pack(FORMS[st.width], st.count) .. string.rep('\0', (b - last - 1) * st.width)
        local head = pack(HEAD, st.width, b, total, more) .. epoch_of(st, AT, lease, now)
        keep(key, head .. older .. before, st.reset)
      else
        local counts = expand(st)
        for n = last + 1, b do counts[n - st.first + 1] = 0 end
        counts[#counts] = counts[#counts] + more
        keep(key, compact(epoch_of(st, AT, lease, now), b, counts, total), st.reset)
      end
      st.total, st.counts, st.value = total, nil, false
      if lease == '' then return b, 0 end
      return b, 0, epoch_of(st, AT, lease, now)
    end,
    refund = function(key, st, spec, now, amount, bucket)
      if bucket < st.first or bucket > st.last or st.total == 0 then return 0 end
      local counts, at = expand(st), bucket - st.first + 1
      local back = counts[at]
      if amount < back then back = amount end
      if back == 0 then return 0 end
      counts[at] = counts[at] - back
      if st.total == back then
        call('DEL', key)
      else
        local epoch = epoch_of(st, AT)
        keep(key, compact(epoch, st.last, counts, st.total - back), (st.last + 1 + RING) * spec.width - now)
      end
      return back
    end,
  }
end
