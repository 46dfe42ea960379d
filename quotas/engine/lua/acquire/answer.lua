-- What acquire.lua returns. A chapter of it.

-- Weigh all accounts. The pool's status (1 an account was chosen, 0 none free, 2 impossible, 3 all disabled), and the
-- microseconds until the first is free (NEVER: only a change helps).
local function weigh_all(chosen)
  read_all()
  local possible, enabled, soonest = false, false, nil
  for i = 1, size do
    local a = account(i)
    if a.reason ~= 'disabled' then
      enabled = true
      weigh(i)
      if stale then return end
      if not a.impossible then possible = true end
      if a.reason and a.ready ~= NEVER and (not soonest or a.ready < soonest) then soonest = a.ready end
    end
  end
  if chosen then return 1, 0 end
  local status = (not enabled and 3) or (not possible and 2) or 0
  return status, status == 0 and soonest and soonest - now or NEVER
end

-- Status and time, then what each of the caller's limits says.
local function limits_answer(status)
  local head = pack('<Bd', status, now)
  if n == 0 then return head end
  local out = {head}
  for i = 1, n do
    local st = specs[i].state
    out[i + 1] = pack('<Bi8i8i8i8', (st.allowed and 1 or 0) + (st.impossible and 2 or 0),
      st.used, st.remaining, st.retry, st.reset)
  end
  return table.concat(out)
end

-- A line for each account behind the pool's status, and its reason as a member of the answer.
local function add_accounts(answer)
  local lines = {answer[2]}
  for i = 1, size do
    local a = account(i)
    local till = a.reason and (a.ready == NEVER and NEVER or a.ready - now) or 0
    lines[#lines + 1] = pack('<Bdd', a.reason and 0 or 1, till, health_of(a.s, now))
    answer[2 + i] = a.reason or ''
  end
  answer[2] = table.concat(lines)
end

-- Why accounts were passed over, each reason with its count.
local function add_skips(answer)
  local reasons = {}
  for i = 1, size do
    local reason = accounts[i] and accounts[i].reason
    if reason then reasons[reason] = (reasons[reason] or 0) + 1 end
  end
  for reason, count in pairs(reasons) do
    answer[#answer + 1] = reason
    answer[#answer + 1] = count
  end
end
