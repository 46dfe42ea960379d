-- The circuit breaker. A library.

-- A result while it is open: only a probe's counts.
local function count_probe(ended, expiry)
  local s, now = ended.state, ended.now
  if ended.probe == 1 and expiry and expiry > now then
    s.pr[ended.lease] = nil
    if ended.broken then
      s.bo, s.be, s.pr, s.pk, s.bm = now + ended.open_for, ended.epoch + 1, nil, nil, nil
      ended.transition = 'opened'
    elseif ended.category ~= 'unknown' then
      s.pk = (s.pk or 0) + 1
      if s.pk >= ended.probes then
        s.bo, s.be, s.pr, s.pk, s.bf, s.bw, s.bm = nil, ended.epoch + 1, nil, nil, nil, nil, nil
        ended.transition = 'closed'
      end
    end
  end
end

-- A result while it is closed.
local function count_closed(ended)
  local s, now, window = ended.state, ended.now, ended.window
  local w = s.bw or {now, 0, 0, 0, 0, 0}
  local in_a_row = w[6] or 0
  if now - w[1] >= window then
    local fresh = now - w[1] < 2 * window
    w = {now, 0, 0, fresh and w[2] or 0, fresh and w[3] or 0, 0}
  end
  if ended.broken then
    w[3], w[6] = w[3] + 1, in_a_row + 1
    local recent = {}
    for _, time in ipairs(s.bf or {}) do
      if time > now - window then recent[#recent + 1] = time end
    end
    recent[#recent + 1] = now
    if #recent > ended.failures then table.remove(recent, 1) end
    s.bf = recent
    -- A share of failures below a fifth is no outage, however busy the account is. After many successes a total outage
    -- would take long to reach that share; failures in a row show it at once.
    local view = math.max(0, 1 - (now - w[1]) / window)
    local good, bad = w[2] + w[4] * view, w[3] + w[5] * view
    if #recent >= ended.failures and (bad >= 0.2 * (good + bad) or w[6] >= 2 * ended.failures) then
      s.bo, s.be, s.pr, s.pk, s.bf, s.bm = now + ended.open_for, ended.epoch + 1, nil, nil, nil, nil
      w = nil
      ended.transition = 'opened'
    end
  elseif ended.category ~= 'unknown' then
    w[2], w[6] = w[2] + 1, 0
  end
  s.bw = w
end

-- Results of calls that began in an earlier epoch do not count.
local function move_breaker(ended)
  local s = ended.state
  if (s.be or 0) ~= ended.epoch then return end
  if s.bo then count_probe(ended, s.pr and s.pr[ended.lease]) else count_closed(ended) end
end
