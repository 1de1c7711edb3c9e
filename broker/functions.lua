#!lua name=dragoman_v2
-- The decisions of the broker protocol, version 2. Every function runs atomically; every key it
-- touches is declared in KEYS and lies in one shard's hash slot. Costs are characters, times are
-- milliseconds of the server's clock. docs/protocol.md tells the protocol as a whole.

local REVISION = 17
local GROUP = 'workers'
local DEFAULT_WINDOW = 64     -- records kept ready while no worker lives
local MOST_PROMOTED = 1024    -- per call: longer runs would hold up every other client
local RATE_SAMPLE_MS = 500    -- completions are averaged over at least this long
local RATE_HORIZON_MS = 10000 -- time constant of the drain rate's moving average
local RATE_FALL_MS = 2000     -- the same where it falls: hoping for too much costs deadlines
local DEADLINE_SHARE = 0.8    -- of a deadline that the estimated wait may take; estimates err
local RATE_TRUSTED_MS = 1000  -- of full load must have been measured before a rate refuses anybody
-- Of the drain rate, what each lane gets at least while both are full, as inference_worker/roster.py
-- divides the slots (benchmarks/fairness.py measures it).
local SHARE = {interactive = 3 / 4, bulk = 1 / 5}
local OTHER = {interactive = 'bulk', bulk = 'interactive'}
local REPLY_LENGTH = 10000    -- news kept in a reply stream, about
local MOST_TOLD_BYTES = 4096  -- of outcomes that the news of an end bring along
local USAGE_TTL_S = 40 * 86400  -- after the last day of a month that has a request
local STATUS = {'state', 'total', 'remaining', 'succeeded', 'model', 'lane', 'source', 'target', 'ids',
  'created_ms', 'deadline_ms', 'watchers', 'idempotency'}

local function precise_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
end

local function now_ms()
  return math.floor(precise_ms())
end

local function number(value, default)
  return tonumber(value or nil) or default
end

-- Doubles keep their exact value through this format, so that cancel finds the scores submit gave.
local function exact(value)
  -- Both forms are the same for whole numbers, of which this one is written much faster.
  if value % 1 == 0 and value < 2 ^ 53 then return string.format('%d', value) end
  return string.format('%.17g', value)
end

-- The fields of a request. Where somebody put something else in its place there is no request, rather
-- than an error that would take down what others have in the same call.
local function fields_of(request, names)
  local fields = redis.pcall('HMGET', request, unpack(names))
  return fields.err and {} or fields
end

-- ── The ready window ─────────────────────────────────────────────────────────────────────────

-- Entries of the stream that no worker holds yet.
local function unread(stream)
  local length = redis.call('XLEN', stream)
  if length == 0 then return 0 end
  local pending = redis.pcall('XPENDING', stream, GROUP)
  if pending.err then return length end -- no group yet: nobody holds anything
  return length - pending[1]
end

-- Records that the live workers' engines hold together.
local function batches(load, model)
  return number(redis.call('HGET', load, 'batch:' .. model), DEFAULT_WINDOW)
end

-- Moves records from the backlog into the stream, fairest first, until so many are ready as somebody
-- is about to take, and one more per live worker: what a worker that waits is woken by. Whatever is
-- in the stream comes before all that is submitted later, so more would be less fair. The score of
-- the last one moved is the fair queue's clock.
local function promote(stream, backlog, load, model, lane, taking)
  local waiting = redis.call('ZCARD', backlog)
  if waiting == 0 then return end
  local window = number(redis.call('HGET', load, 'window:' .. model), DEFAULT_WINDOW)
  local room = math.min(window + (taking or 0) - unread(stream), waiting, MOST_PROMOTED)
  if room <= 0 then return end
  local popped = redis.call('ZPOPMIN', backlog, room)
  for i = 1, #popped, 2 do
    redis.call('XADD', stream, '*', 'record', popped[i])
  end
  redis.call('HSET', load, 'clock:' .. model .. ':' .. lane, popped[#popped])
end

-- ── Outstanding cost and drain rate ──────────────────────────────────────────────────────────

local function lower_load(load, model, lane, tenant, cost)
  redis.call('HINCRBY', load, 'cost:' .. model, -cost)
  redis.call('HINCRBY', load, 'cost:' .. model .. ':' .. lane, -cost)
  local field = 'tenant:' .. model .. ':' .. lane .. ':' .. tenant
  if redis.call('HINCRBY', load, field, -cost) <= 0 then
    redis.call('HDEL', load, field, 'tag:' .. model .. ':' .. lane .. ':' .. tenant)
  end
end

-- An average over busy time alone: short bursts add up until they make a sample. While the workers
-- are not full, what they complete says what was asked of them and not what they can do, so that
-- such a sample may raise the rate but not lower it.
local function measure_rate(load, model, cost, full, now)
  local drained = redis.call('HINCRBY', load, 'drained:' .. model, cost)
  local fields = redis.call('HMGET', load, 'since:' .. model, 'busy:' .. model, 'rate:' .. model,
    'full:' .. model)
  -- A clock that was set back, as by a failover, measures nothing.
  local busy = number(fields[2], 0) + math.max(0, now - number(fields[1], now))
  if busy >= RATE_SAMPLE_MS then
    local sample, rate, measured = drained * 1000 / busy, number(fields[3], nil), number(fields[4], 0)
    if not rate or (measured == 0 and full and sample > rate) then
      rate = sample
    elseif full or sample > rate then
      local horizon = sample < rate and RATE_FALL_MS or RATE_HORIZON_MS
      rate = rate + (1 - math.exp(-busy / horizon)) * (sample - rate)
    end
    if full and measured < RATE_TRUSTED_MS then
      redis.call('HSET', load, 'full:' .. model, exact(measured + busy))
    end
    redis.call('HSET', load, 'rate:' .. model, exact(rate), 'drained:' .. model, 0)
    busy = 0
  end
  redis.call('HSET', load, 'busy:' .. model, exact(busy), 'since:' .. model, exact(now))
end

-- Whether the workers had all they can hold until these records left. (Not whether as much again was
-- waiting: what an engine holds ahead of a step is work that waits.)
local function were_full(keys, model, completed)
  local left = redis.call('XLEN', keys[3]) + redis.call('ZCARD', keys[4]) + redis.call('XLEN', keys[5])
    + redis.call('ZCARD', keys[6])
  return left + completed >= batches(keys[1], model)
end

-- Characters that are done before a record of this score is: what is in the window, and what has a
-- lower score in the backlog, at the lane's mean length; never less than the tenant's own. And a
-- batch of all workers, of so many records: nothing comes out of an engine before the batch it is
-- in, and so it is with what is in there now.
local function characters_before(backlog, stream, score, batch, outstanding, lane_cost, own)
  local window, waiting = redis.call('XLEN', stream), redis.call('ZCARD', backlog)
  if window + waiting == 0 then return own end
  local mean = lane_cost / (window + waiting)
  local before = window + redis.call('ZCOUNT', backlog, '-inf', exact(score))
  return math.max(own, math.min(lane_cost, mean * before))
    + math.min(outstanding, mean * batch)
end

-- Seconds until a lane has done so many characters, with the other lane as full as it is now: at
-- worst its guaranteed share of the rate is its own, at best both lanes are empty by then.
local function seconds(lane, characters, other_lane, rate)
  return math.min(characters / (SHARE[lane] * rate), (characters + other_lane) / rate)
end

-- ── News for the API processes ───────────────────────────────────────────────────────────────

-- Adds a line about a request to the news of each process that watches it, after one with its
-- outcomes if they are told.
local function note(news, watchers, id, remaining, state, outcomes)
  for process in string.gmatch(watchers or '', '%S+') do
    news[process] = news[process] or {}
    if outcomes then
      table.insert(news[process], '=' .. id)
      table.insert(news[process], outcomes)
    end
    table.insert(news[process], id)
    table.insert(news[process], remaining .. ' ' .. state)
  end
end

-- Writes the news to the declared reply streams (process → key). Returns what is left for
-- processes that began to watch after the caller looked, as {process, {field, value, …}, …}.
local function publish(news, replies)
  local left = {}
  for process, lines in pairs(news) do
    if replies[process] then
      redis.call('XADD', replies[process], 'NOMKSTREAM', 'MAXLEN', '~', REPLY_LENGTH, '*',
        unpack(lines))
    else
      table.insert(left, process)
      table.insert(left, lines)
    end
  end
  return left
end

-- A request that has ended lives on for its results; so does the Idempotency-Key that leads to it.
-- The mark by which identical requests joined it goes: only what is in flight is joined.
local function settle(request, lead, id, ttl_ms)
  redis.call('PEXPIRE', request, ttl_ms)
  local value = lead and redis.call('GET', lead)
  if not value then return end
  if value == id then redis.call('DEL', lead)
  elseif string.sub(value, 1, #id + 1) == id .. ' ' then redis.call('PEXPIRE', lead, ttl_ms) end
end

-- ── submit ───────────────────────────────────────────────────────────────────────────────────
-- KEYS: request, load, backlog, stream, usage [, lead: idempotency, or the mark of a request to
--       join]
-- ARGV: id, tenant, model, lane, source, target, ids, deadline in ms from now, result TTL ms, cap,
--       tenant's cap ('' for both: accepted before, not to be refused), kept, watching process,
--       idempotency digest, fingerprint, weight, the request not to join ('' any, '-' if the lead
--       is no mark), day of the month, the records' costs as '71 80', then each record's JSON from
--       its tenant on
-- Answers {verdict, id, outstanding cost, estimated wait s, s until there is room}; times are ''
-- while no rate is known.
local RECORDS = 20 -- where they begin in ARGV

local function note_usage(usage, day, records, characters)
  local requests = redis.call('HINCRBY', usage, day .. ':requests', 1)
  redis.call('HINCRBY', usage, day .. ':records', records)
  redis.call('HINCRBY', usage, day .. ':characters', characters)
  if requests == 1 then redis.call('EXPIRE', usage, USAGE_TTL_S) end
end

-- Why a request cannot be taken now, and how many seconds from now it could be; false if it can.
-- Its tenant has so much outstanding of its own, and a rate was measured for so long at full load.
local function refusal(args, cost, outstanding, own, rate, measured_ms, wait)
  local cap, tenant_cap, deadline = tonumber(args[10]), tonumber(args[11]), tonumber(args[8]) / 1000
  if not cap then return false end
  local excess = own + cost - tenant_cap
  -- Who has nothing outstanding may send any one request: a smaller cap would shut it out for good.
  if own > 0 and excess > 0 then
    return 'tenant_overloaded', wait and wait * math.min(1, excess / own)
  end
  excess = outstanding + cost - cap
  if outstanding > 0 and excess > 0 then
    return 'overloaded', wait and excess / rate
  end
  local bearable = deadline * DEADLINE_SHARE
  if wait and wait > bearable and measured_ms >= RATE_TRUSTED_MS then
    return 'too_late', wait - bearable
  end
  return false
end

local function submit(keys, args)
  local request, load, backlog, stream, usage, lead = unpack(keys)
  local id, tenant, model, lane, source, target, ids = unpack(args, 1, 7)
  local precise = precise_ms()
  local now = math.floor(precise)
  local deadline, ttl = now + tonumber(args[8]), tonumber(args[8]) + tonumber(args[9])
  local process, weight = args[13], tonumber(args[16])
  local all, laned = 'cost:' .. model, 'cost:' .. model .. ':' .. lane
  local owned, tag = 'tenant:' .. model .. ':' .. lane .. ':' .. tenant,
    'tag:' .. model .. ':' .. lane .. ':' .. tenant
  local fields = redis.call('HMGET', load, all, 'rate:' .. model, 'clock:' .. model .. ':' .. lane,
    tag, laned, owned, 'tenant:' .. model .. ':' .. OTHER[lane] .. ':' .. tenant, 'batch:' .. model,
    'full:' .. model)
  local outstanding, rate = number(fields[1], 0), number(fields[2], nil)

  if redis.call('EXISTS', request) == 1 then return {'duplicate', id, outstanding, '', ''} end
  local joining = lead and args[17] ~= '-'
  if lead then
    local earlier = redis.call('GET', lead)
    if joining then
      if earlier and earlier ~= args[17] then return {'joined', earlier, outstanding, '', ''} end
    elseif earlier then
      local earlier_id, fingerprint = string.match(earlier, '^(%S+) (.*)$')
      if earlier_id ~= id then -- else this very request was lost, and is queued again
        local verdict = fingerprint == args[15] and 'duplicate' or 'conflict'
        return {verdict, earlier_id, outstanding, '', ''}
      end
    end
  end
  local cost, costs = 0, {}
  for one in string.gmatch(args[19], '%d+') do
    costs[#costs + 1] = tonumber(one)
    cost = cost + costs[#costs]
  end
  local base, wait = math.max(number(fields[3], 0), number(fields[4], 0)), nil
  local lane_cost, own_cost = number(fields[5], 0), number(fields[6], 0)
  if rate and rate > 0 then
    local before = characters_before(backlog, stream, base + cost / weight,
      number(fields[8], DEFAULT_WINDOW), outstanding, lane_cost, own_cost)
    wait = seconds(lane, before + cost, outstanding - lane_cost, rate)
  end
  local told = wait and exact(wait) or ''
  local reason, room = refusal(args, cost, outstanding, own_cost + number(fields[7], 0), rate,
    number(fields[9], 0), wait)
  if reason then return {reason, id, outstanding, told, room and exact(room) or ''} end

  local head = '{"request":"' .. id .. '","accepted_ms":' .. string.format('%d', now)
    .. ',"deadline_ms":' .. string.format('%d', deadline) .. ',"index":'
  local score, added, members = base, 0, {}
  for i, size in ipairs(costs) do
    score = score + size / weight
    members[#members + 1] = exact(score)
    members[#members + 1] = head .. string.format('%d', i - 1) .. ',' .. args[RECORDS - 1 + i]
    if #members >= 512 or i == #costs then
      added = added + redis.call('ZADD', backlog, unpack(members))
      members = {}
    end
  end
  -- Lost and queued again within the same millisecond, its last records may be there already.
  for i = added + 1, #costs do cost = cost - costs[i] end
  redis.call('HSET', load, tag, exact(score), all, outstanding + cost, laned, lane_cost + cost,
    owned, own_cost + cost)
  -- Idle until now: idle time must not count as slow draining.
  if outstanding == 0 then redis.call('HSET', load, 'since:' .. model, exact(precise)) end
  redis.call('HSET', request, 'state', 'queued', 'total', #costs, 'remaining', #costs,
    'succeeded', 0, 'model', model, 'lane', lane, 'source', source, 'target', target, 'ids', ids,
    'created_ms', string.format('%d', now), 'deadline_ms', string.format('%d', deadline),
    'waiters', 1, 'kept', args[12], 'watchers', process, 'idempotency', args[14],
    'base', exact(base), 'score', exact(score), 'weight', args[16], 'costs', args[19])
  redis.call('PEXPIRE', request, ttl)
  if lead then redis.call('SET', lead, joining and id or id .. ' ' .. args[15], 'PX', ttl) end
  note_usage(usage, args[18], #costs, cost)
  promote(stream, backlog, load, model, lane)
  return {'accepted', id, outstanding + cost, told, ''}
end

-- ── watch ────────────────────────────────────────────────────────────────────────────────────
-- KEYS: request, load   ARGV: process to wake ('' for none), 'results' or ''
-- Answers false for an unknown request, else {status fields, now, outstanding, rate, results}.
local function watch(keys, args)
  local status = fields_of(keys[1], STATUS)
  if not status[1] then return false end
  local watchers, process = ' ' .. (status[12] or '') .. ' ', args[1]
  local open = status[1] == 'queued' or status[1] == 'running'
  if open and process ~= '' and not string.find(watchers, ' ' .. process .. ' ', 1, true) then
    redis.call('HSET', keys[1], 'watchers', (status[12] or '') .. ' ' .. process)
  end
  local load = redis.call('HMGET', keys[2], 'cost:' .. status[5], 'rate:' .. status[5])
  local results = {}
  if args[2] == 'results' then results = redis.call('HGETALL', keys[1]) end
  return {status, now_ms(), load[1] or '0', load[2] or '', results}
end

-- ── wait ─────────────────────────────────────────────────────────────────────────────────────
-- KEYS: request, load, its lane's backlog, its lane's stream
-- Answers the estimated seconds until its last record is done; '' while no rate is known, and for
-- what is over.
local function wait(keys)
  local fields = redis.call('HMGET', keys[1], 'state', 'model', 'lane', 'score')
  if (fields[1] ~= 'queued' and fields[1] ~= 'running') or not fields[4] then return '' end
  local model, lane = fields[2], fields[3]
  local costs = redis.call('HMGET', keys[2], 'cost:' .. model, 'cost:' .. model .. ':' .. lane,
    'rate:' .. model, 'batch:' .. model)
  local outstanding, lane_cost = number(costs[1], 0), number(costs[2], 0)
  local rate, batch = number(costs[3], 0), number(costs[4], DEFAULT_WINDOW)
  if rate <= 0 then return '' end
  local before = characters_before(keys[3], keys[4], tonumber(fields[4]), batch, outstanding,
    lane_cost, 0)
  return exact(seconds(lane, before, outstanding - lane_cost, rate))
end

-- ── join ─────────────────────────────────────────────────────────────────────────────────────
-- KEYS: request   ARGV: process to wake, ms from now that the work may take, result TTL ms
-- A caller more for work under way: it goes on as long as the most patient one allows. Answers 0,
-- and changes nothing, for a request that is gone or has ended, or some of whose records may have
-- ended as expired.
local function join(keys, args)
  local fields = redis.call('HMGET', keys[1], 'state', 'deadline_ms', 'watchers', 'given_up')
  local now, until_ms = now_ms(), number(fields[2], 0)
  if (fields[1] ~= 'queued' and fields[1] ~= 'running') or until_ms <= now or fields[4] then
    return 0
  end
  local deadline, watchers = now + tonumber(args[2]), fields[3] or ''
  if deadline > until_ms then
    redis.call('HSET', keys[1], 'deadline_ms', string.format('%d', deadline))
    redis.call('PEXPIRE', keys[1], tonumber(args[2]) + tonumber(args[3]))
  end
  if not string.find(' ' .. watchers .. ' ', ' ' .. args[1] .. ' ', 1, true) then
    redis.call('HSET', keys[1], 'watchers', watchers .. ' ' .. args[1])
  end
  redis.call('HINCRBY', keys[1], 'waiters', 1)
  return 1
end

-- ── keep, leave ──────────────────────────────────────────────────────────────────────────────
-- KEYS: request. A kept request is never cancelled for lack of waiters.
local function keep(keys)
  if redis.call('EXISTS', keys[1]) == 0 then return 0 end
  redis.call('HSET', keys[1], 'kept', 1)
  return 1
end

local function leave(keys)
  if redis.call('EXISTS', keys[1]) == 0 then return 0 end
  redis.call('HSET', keys[1], 'left_ms', string.format('%d', now_ms()))
  return redis.call('HINCRBY', keys[1], 'waiters', -1)
end

-- ── listen ───────────────────────────────────────────────────────────────────────────────────
-- KEYS: reply stream   ARGV: TTL s
-- Makes or renews a process's reply stream, never without a TTL; answers its last id.
local function listen(keys, args)
  if redis.call('EXISTS', keys[1]) == 0 then
    redis.call('XADD', keys[1], 'MAXLEN', '~', REPLY_LENGTH, '*', 'made', '')
  end
  redis.call('EXPIRE', keys[1], args[1])
  local info = redis.call('XINFO', 'STREAM', keys[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

-- ── cancel ───────────────────────────────────────────────────────────────────────────────────
-- KEYS: request, load, backlog, stream, idempotency, then reply streams
-- ARGV: id, tenant, result TTL ms, patience ms ('' cancels in any case; a number only a request
--       that is not kept and that nobody has waited for for that long), processes of the streams
-- Answers {cancelled or not, news left to publish}.
local function cancel(keys, args)
  local request, load, backlog, stream = unpack(keys, 1, 4)
  local id, tenant, patience = args[1], args[2], tonumber(args[4])
  local fields = redis.call('HMGET', request, 'state', 'model', 'lane', 'base', 'weight', 'costs',
    'remaining', 'watchers', 'idempotency', 'waiters', 'kept', 'left_ms')
  local state, model, lane = fields[1], fields[2], fields[3]
  if state ~= 'queued' and state ~= 'running' then return {0, {}} end
  if patience then
    local idle = now_ms() - number(fields[12], now_ms())
    if fields[11] == '1' or number(fields[10], 0) > 0 or idle < patience then return {0, {}} end
  end
  -- The scores that submit gave, recomputed in the same order, find the request's own records
  -- without walking the backlog. What is already in the stream is completed by its worker.
  local score, weight, removed = tonumber(fields[4]), tonumber(fields[5]), 0
  local head = '{"request":"' .. id .. '"'
  for cost in string.gmatch(fields[6], '%d+') do
    score = score + tonumber(cost) / weight
    local at = exact(score)
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', backlog, at, at)) do
      if string.sub(member, 1, #head) == head and redis.call('ZREM', backlog, member) == 1 then
        removed = removed + tonumber(cost)
      end
    end
  end
  if removed > 0 then lower_load(load, model, lane, tenant, removed) end
  redis.call('HSET', request, 'state', 'cancelled')
  settle(request, fields[9] ~= '' and keys[5], id, args[3])
  local news, replies = {}, {}
  for i = 5, #args do replies[args[i]] = keys[i + 1] end
  note(news, fields[8], id, fields[7], 'cancelled')
  promote(stream, backlog, load, model, lane)
  return {1, publish(news, replies)}
end

-- ── begin ────────────────────────────────────────────────────────────────────────────────────
-- KEYS: requests   ARGV: in how many ms from now a result can be there at best (0: nothing else waits),
--       then per request: the indexes of its records, as '0 1 5'
-- Answers per request {what holds for its records (go, expired, cancelled, over), its watchers, the
-- indexes of those that are over all the same}: what a worker must know before it spends model time.
-- What would end after its deadline is lost already: it would only make others late too.
local function begin(keys, args)
  local now, least, answers = now_ms(), tonumber(args[1]), {}
  for i, request in ipairs(keys) do
    local asked = {'state', 'deadline_ms', 'watchers', 'waiters', 'kept'}
    for index in string.gmatch(args[i + 1], '%d+') do asked[#asked + 1] = index end
    local fields = fields_of(request, asked)
    local state, deadline, verdict, over = fields[1], number(fields[2], 0), 'go', {}
    if not state then verdict = 'over'
    elseif state == 'cancelled' then verdict = state
    elseif deadline <= now + least then
      verdict = 'expired'
      -- Nobody with more time may join what was given up.
      if deadline > now then redis.call('HSET', request, 'given_up', 1) end
    elseif least > 0 and number(fields[4], 1) <= 0 and fields[5] ~= '1' then
      -- Others wait, and for this one nobody does, who may only come back.
      verdict = 'cancelled'
      redis.call('HSET', request, 'given_up', 1)
    elseif state == 'queued' then
      redis.call('HSET', request, 'state', 'running')
    end
    for at = 6, #asked do
      if fields[at] then over[#over + 1] = asked[at] end
    end
    answers[i] = {verdict, fields[3] or '', over}
  end
  return answers
end

-- ── complete ─────────────────────────────────────────────────────────────────────────────────
-- KEYS: load, dead, interactive stream, its backlog, bulk stream, its backlog, then requests, then
--       leads (idempotency keys, marks of requests to join), then reply streams
-- ARGV: model, result TTL ms, dead letters to keep, numbers of requests, leads, reply streams,
--       interactive and bulk entries, then processes of the reply streams, entries of each lane,
--       then per request, those of the interactive lane first: its tenant, its id, which lead (0
--       none), its records as '0t71 1e80 2n5' in the order of their entries (index, t text, e error
--       or n nothing to write, cost), and the outcomes of those that have one;
--       then per dead letter: which entry, the record, its outcome
-- Answers {records acknowledged, news left to publish}.
local ENTRIES = 9 -- where they begin in ARGV, behind the processes

-- Acknowledges entries and deletes them; tells which of them this call has really removed, and so
-- who finished first. An entry leaves the pending list and the stream together, here and nowhere
-- else: if all of them were pending, nobody has finished any, and all go at once. If one was not,
-- another worker has finished some; those are not in the stream any more, the others still are.
local function remove(stream, args, first, last, removed)
  if last < first then return end
  local entries = {unpack(args, first, last)}
  local all = redis.call('XACK', stream, GROUP, unpack(entries)) == #entries
  if all then redis.call('XDEL', stream, unpack(entries)) end
  for at = first, last do
    removed[at] = all or redis.call('XDEL', stream, args[at]) == 1
  end
end

-- The outcomes of a request by index, as JSON, if one call brought all of them and they are few: its
-- waiters then need not read it.
local function told(fresh, total)
  if #fresh / 2 ~= tonumber(total) then return nil end
  local brought = {}
  for i = 1, #fresh, 2 do brought[#brought + 1] = '"' .. fresh[i] .. '":' .. fresh[i + 1] end
  local outcomes = '{' .. table.concat(brought, ',') .. '}'
  return #outcomes <= MOST_TOLD_BYTES and outcomes or nil
end

-- Writes outcomes of a request (index, outcome, 1 if it has a text, index, …) where there is none
-- yet, and its news. The last one ends it.
local function store(request, lead, id, outcomes, ttl_ms, news)
  local asked = {'state', 'watchers', 'remaining', 'succeeded', 'total'}
  for i = 1, #outcomes, 3 do asked[#asked + 1] = outcomes[i] end
  local fields = fields_of(request, asked)
  local state, remaining, succeeded = fields[1], number(fields[3], 0), number(fields[4], 0)
  if not state or state == 'cancelled' then return end
  local written, fresh = {}, {}
  for i = 1, #outcomes, 3 do
    local index = outcomes[i]
    -- A record may be here twice: Redis lost its request, and it was submitted again.
    if not fields[6 + (i - 1) / 3] and not written[index] then
      written[index] = true
      fresh[#fresh + 1], fresh[#fresh + 2] = index, outcomes[i + 1]
      remaining, succeeded = remaining - 1, succeeded + outcomes[i + 2]
    end
  end
  if #fresh == 0 then return end
  if remaining == 0 then state = succeeded > 0 and 'done' or 'failed' end
  redis.call('HSET', request, 'state', state, 'remaining', remaining, 'succeeded', succeeded,
    unpack(fresh))
  if remaining == 0 then settle(request, lead, id, ttl_ms) end
  note(news, fields[2], id, remaining, state, told(fresh, fields[5]))
end

local function complete(keys, args)
  local model, ttl_ms, letters = args[1], args[2], args[3]
  local requests, leads, processes = tonumber(args[4]), tonumber(args[5]), tonumber(args[6])
  local replies = {}
  for i = 1, processes do replies[args[ENTRIES - 1 + i]] = keys[6 + requests + leads + i] end
  local entry = ENTRIES + processes
  local bulk = entry + tonumber(args[7])
  local at = bulk + tonumber(args[8])
  local removed, first, acknowledged, drained, lowered, news = {}, entry, 0, 0, {}, {}
  remove(keys[3], args, entry, bulk - 1, removed)
  remove(keys[5], args, bulk, at - 1, removed)
  for which = 1, requests do
    local tenant, id, lead, records = unpack(args, at, at + 3)
    local owner, cost, outcomes = (entry < bulk and 'interactive ' or 'bulk ') .. tenant, 0, {}
    at = at + 4
    for index, kind, size in string.gmatch(records, '(%d+)(%l)(%d+)') do
      if removed[entry] then
        acknowledged, cost = acknowledged + 1, cost + size
        if kind ~= 'n' then
          local n = #outcomes
          outcomes[n + 1], outcomes[n + 2], outcomes[n + 3] = index, args[at], kind == 't' and 1 or 0
        end
      end
      if kind ~= 'n' then at = at + 1 end
      entry = entry + 1
    end
    drained, lowered[owner] = drained + cost, (lowered[owner] or 0) + cost
    if #outcomes > 0 then
      local mark = lead ~= '0' and keys[6 + requests + lead]
      store(keys[6 + which], mark, id, outcomes, ttl_ms, news)
    end
  end
  for i = at, #args, 3 do
    if removed[first - 1 + args[i]] then
      redis.call('XADD', keys[2], 'MAXLEN', '~', letters, '*', 'model', model, 'record', args[i + 1],
        'outcome', args[i + 2])
    end
  end
  for owner, cost in pairs(lowered) do
    local lane, tenant = string.match(owner, '^(%S+) (.*)$')
    if cost > 0 then lower_load(keys[1], model, lane, tenant, cost) end
  end
  if drained > 0 then
    measure_rate(keys[1], model, drained, were_full(keys, model, acknowledged), precise_ms())
  end
  promote(keys[3], keys[4], keys[1], model, 'interactive')
  promote(keys[5], keys[6], keys[1], model, 'bulk')
  return {acknowledged, publish(news, replies)}
end

-- ── Leases ───────────────────────────────────────────────────────────────────────────────────

local function owned(stream, consumer, entry)
  local pending = redis.call('XPENDING', stream, GROUP, entry, entry, 1)
  return pending[1] and pending[1][2] == consumer
end

-- KEYS: stream   ARGV: consumer, entries. Answers the entries that are still the consumer's: a
-- bare XCLAIM would steal back what another worker has reclaimed.
local function renew(keys, args)
  local kept = {}
  for i = 2, #args do
    if owned(keys[1], args[1], args[i]) then
      redis.call('XCLAIM', keys[1], GROUP, args[1], 0, args[i], 'JUSTID')
      table.insert(kept, args[i])
    end
  end
  return kept
end

-- KEYS: stream   ARGV: consumer, lease ms, entries. Makes them claimable at once, as if they had
-- never been delivered.
local function hand_back(keys, args)
  local returned = 0
  for i = 3, #args do
    if owned(keys[1], args[1], args[i]) then
      redis.call('XCLAIM', keys[1], GROUP, args[1], 0, args[i], 'IDLE', args[2], 'RETRYCOUNT', 0,
        'JUSTID')
      returned = returned + 1
    end
  end
  return returned
end

-- KEYS: stream   ARGV: consumer, lease ms, most fresh records, most suspects
-- Claims records whose lease ran out, of one kind only: handed back ones (as many as fit), else
-- those delivered once (a small group), else a single one that was delivered more often. Claiming
-- counts as a delivery, so nothing is claimed that would then only wait behind a suspect.
-- Answers {entry, record JSON, deliveries} per record.
local function reclaim(keys, args)
  local stream, consumer, lease = keys[1], args[1], args[2]
  local kinds = {{}, {}, {}}
  for _, pending in ipairs(redis.call('XPENDING', stream, GROUP, 'IDLE', lease, '-', '+', 1024)) do
    local kind = kinds[math.min(pending[4], 2) + 1]
    table.insert(kind, {pending[1], pending[4]})
  end
  table.sort(kinds[3], function(a, b) return a[2] < b[2] end) -- who has had fewer chances first
  local most = {tonumber(args[3]), tonumber(args[4]), 1}
  for kind = 1, 3 do
    local claimed = {}
    for i = 1, math.min(#kinds[kind], most[kind]) do
      local entry, deliveries = kinds[kind][i][1], kinds[kind][i][2]
      local message = redis.call('XCLAIM', stream, GROUP, consumer, lease, entry)[1]
      if message then table.insert(claimed, {entry, message[2][2], deliveries + 1}) end
    end
    if #claimed > 0 then return claimed end
  end
  return {}
end

-- ── Workers ──────────────────────────────────────────────────────────────────────────────────

-- KEYS: model, streams   ARGV: fields and values of the model's hash, or nothing
-- Makes the groups that are missing and tells what the model can do. A function for the sake of its
-- flag: a worker must be able to start while memory is full, or nothing would ever empty it.
local function enlist(keys, args)
  for i = 2, #keys do
    -- From 0, not $: what was queued before the group existed is work too.
    local made = redis.pcall('XGROUP', 'CREATE', keys[i], GROUP, '0', 'MKSTREAM')
    if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
  end
  if #args > 0 then redis.call('HSET', keys[1], unpack(args)) end
  return 1
end

-- Rewrites the register of a model's workers: sets or drops one, forgets dead ones whose records
-- have all been reclaimed (with their consumers), and counts the live ones.
local function register(load, model, streams, worker, expiry, batch, now)
  local field = 'workers:' .. model
  local workers = cjson.decode(redis.call('HGET', load, field) or '{}')
  local nobody = true
  for _, entry in pairs(workers) do nobody = nobody and entry[1] <= now end
  -- Time without a worker must not count as slow draining.
  if nobody then redis.call('HSET', load, 'since:' .. model, now) end
  workers[worker] = {expiry, batch}
  local batches, count = 0, 0
  for id, entry in pairs(workers) do
    if entry[1] > now then
      batches, count = batches + entry[2], count + 1
    else
      local idle = true
      for _, stream in ipairs(streams) do
        local pending = redis.pcall('XPENDING', stream, GROUP, '-', '+', 1, id)
        if not pending.err then
          if #pending > 0 then idle = false
          else redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, id) end
        end
      end
      if idle then workers[id] = nil end
    end
  end
  if next(workers) then redis.call('HSET', load, field, cjson.encode(workers))
  else redis.call('HDEL', load, field) end
  if count > 0 then
    redis.call('HSET', load, 'window:' .. model, count, 'batch:' .. model, batches)
  else
    redis.call('HDEL', load, 'window:' .. model, 'batch:' .. model)
  end
  return count
end

-- KEYS: worker, load, interactive stream, its backlog, bulk stream, its backlog
-- ARGV: model, worker id, TTL ms, records of its batch, then fields and values of the worker's hash
local function heartbeat(keys, args)
  local model, ttl, now = args[1], tonumber(args[3]), now_ms()
  redis.call('HSET', keys[1], 'seen_ms', string.format('%d', now), unpack(args, 5))
  redis.call('PEXPIRE', keys[1], ttl)
  register(keys[2], model, {keys[3], keys[5]}, args[2], now + ttl, tonumber(args[4]), now)
  promote(keys[3], keys[4], keys[2], model, 'interactive')
  promote(keys[5], keys[6], keys[2], model, 'bulk')
  return now
end

-- KEYS: worker, load, interactive stream, bulk stream   ARGV: model, worker id
-- A worker leaves. Its consumers stay while they hold anything: deleting one drops its entries.
local function retire(keys, args)
  redis.call('DEL', keys[1])
  -- An expiry in the past: kept in the register until its last record is reclaimed.
  return register(keys[2], args[1], {keys[3], keys[4]}, args[2], 0, 0, now_ms())
end

-- KEYS: load, interactive stream, its backlog, bulk stream, its backlog
-- ARGV: model, most interactive records, most bulk ones
-- Moves into the window, for a worker that reads them next, the fairest records there are at this
-- moment, which no larger window could know. The worker reads them itself: a function would turn
-- each of them into values of Lua and back.
local function fill(keys, args)
  for at, lane in ipairs({'interactive', 'bulk'}) do
    local most = tonumber(args[1 + at])
    if most > 0 then promote(keys[2 * at], keys[2 * at + 1], keys[1], args[1], lane, most) end
  end
  return 1
end

-- ── charge ───────────────────────────────────────────────────────────────────────────────────
-- KEYS: a rate per limit   ARGV: per limit: how many ms of it this takes, how many may be owed
-- The generic cell rate algorithm (ITU-T I.371): a key holds the date at which all that was taken
-- is paid back. What is more than may ever be owed passes once nothing is owed, and owes longer.
-- Takes from all limits or from none; answers {0 or which limit is used up, ms until it is not}.
local function charge(keys, args)
  local now, wait, which, dues = precise_ms(), 0, 0, {}
  for i, key in ipairs(keys) do
    local taken, most = tonumber(args[2 * i - 1]), tonumber(args[2 * i])
    local due = math.max(number(redis.call('GET', key), now), now)
    local free = math.min(due, due + taken - most) - now
    if free > wait then wait, which = free, i end
    dues[i] = due + taken
  end
  if which > 0 then return {which, math.ceil(wait)} end
  for i, key in ipairs(keys) do
    redis.call('SET', key, exact(dues[i]), 'PX', math.max(1, math.ceil(dues[i] - now)))
  end
  return {0, 0}
end

local function revision()
  return REVISION
end

-- What finishes or protects accepted work runs without free memory; only submit needs some.
-- (While a library loads, Lua's own globals are not there yet, so no loop over names.)
local SPARED = {'allow-oom'}
redis.register_function('dragoman_v2_submit', submit)
redis.register_function{function_name = 'dragoman_v2_watch', callback = watch, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_wait', callback = wait,
  flags = {'no-writes'}}
redis.register_function{function_name = 'dragoman_v2_join', callback = join, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_keep', callback = keep, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_leave', callback = leave, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_listen', callback = listen, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_cancel', callback = cancel, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_begin', callback = begin, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_complete', callback = complete, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_renew', callback = renew, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_hand_back', callback = hand_back,
  flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_reclaim', callback = reclaim, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_enlist', callback = enlist, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_heartbeat', callback = heartbeat,
  flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_retire', callback = retire, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_fill', callback = fill, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_charge', callback = charge, flags = SPARED}
redis.register_function{function_name = 'dragoman_v2_revision', callback = revision,
  flags = {'no-writes'}}
