-- Chapter 11: singletons. Of a flow that has them one run goes on for each key; the flow says what becomes of a further start:
--
--   return   it is answered with the run that goes on
--   reject   it is an error
--   replace  the run that goes on is cancelled
--   after    its run waits until the one that goes on has ended, and for singleton_wait seconds after the last start; it takes the
--            place of one that waits already
--
-- A row of `run_singletons` for each key names the run that goes on and the one that waits. Starts lock it, one after the other,
-- before they lock runs. Whoever ends a run holds that run's lock, and never waits for a key: where a start has it, or where a run
-- waits, it writes an alarm, from which begin_runs goes on. Whether a run goes on is always looked up in `runs`.

-- A start of a flow with singletons: its place among the inputs, its turn among those of its key, the run that it makes, and the runs
-- of the key that go on and wait.
create type pgflow.singleton_start as (
  n bigint,
  turn bigint,
  key text,
  new_run_id uuid,
  input jsonb,
  idempotency_key text,
  run_id uuid,
  waiting_run_id uuid
);

-- The key of a run with this input: its value at singleton_path, as JSON. Long ones by their hash; a number however it is written;
-- what is missing is null. Without a path all runs of the flow have one.
create function pgflow.singleton_key(flow pgflow.flows, input jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  path text[] := string_to_array(flow.singleton_path, '.');
  value jsonb;
  key text;
begin
  if path is null then
    return '';
  end if;
  value := case when path[1] = 'run' then singleton_key.input #> path[2:] end;
  key := case jsonb_typeof(value) when 'number' then trim_scale((value #>> '{}')::numeric)::text else coalesce(value::text, 'null') end;
  return case when length(key) <= 255 then key else 'sha256:' || encode(sha256(convert_to(key, 'UTF8')), 'hex') end;
end
$$;

-- What start_runs does for a flow with singletons; `keyed` are the runs whose idempotency keys were free. Starts of the same key
-- happen one after the other, in their order. One that is answered with the run that goes on gives its idempotency key back.
create function pgflow.start_singletons(
  flow pgflow.flows,
  run_ids uuid[],
  inputs jsonb[],
  idempotency_keys text[],
  keyed uuid[],
  owner_id uuid,
  group_id uuid,
  metadata jsonb,
  delay int,
  priority text,
  is_client boolean
)
returns setof pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz;
  asked pgflow.singleton_start[];
  others pgflow.singleton_start[] := '{}';
  turn pgflow.singleton_start[];
  taken int := 0;
  size int;
  ns bigint[] := '{}';
  answers uuid[] := '{}';
begin
  asked := array(
    select row(r.n, null, pgflow.singleton_key(flow, r.input), r.run_id, r.input, r.key, null, null)::pgflow.singleton_start
    from unnest(start_singletons.run_ids, start_singletons.inputs, start_singletons.idempotency_keys)
      with ordinality r (run_id, input, key, n)
    where r.key is null or r.run_id = any (start_singletons.keyed)
  );
  perform pgflow.lock_keys(flow.alias, array(select distinct a.key from unnest(asked) a));
  as_of := pgflow.now(); -- the locks may have been awaited
  -- What is found by its idempotency key or run_id is no new run.
  asked := array(
    select row(
      a.n, row_number() over (partition by a.key order by a.n), a.key, a.new_run_id, a.input, a.idempotency_key, null, null
    )::pgflow.singleton_start
    from unnest(asked) a
    where not exists (select from pgflow.runs r where r.run_id = a.new_run_id)
    order by 1
  );
  if cardinality(asked) < cardinality(start_singletons.inputs) then
    others := array(
      select row(r.n, null, null, r.run_id, r.input, r.key, null, null)::pgflow.singleton_start
      from unnest(start_singletons.run_ids, start_singletons.inputs, start_singletons.idempotency_keys)
        with ordinality r (run_id, input, key, n)
      where r.key is not null and r.run_id <> all (coalesce(start_singletons.keyed, '{}'))
         or exists (select from pgflow.runs existing where existing.run_id = r.run_id)
    );
  end if;
  asked := array(select a from unnest(asked) a order by a.turn, a.n);

  for size in select count(*) from unnest(asked) a group by a.turn order by a.turn loop
    turn := pgflow.starts_by_now(flow.alias, asked[taken + 1:taken + size]);
    taken := taken + size;
    if flow.singleton_when_busy = 'return' then
      turn := pgflow.return_singletons(flow, turn, is_client);
    elsif flow.singleton_when_busy = 'reject' then
      perform pgflow.refuse_singleton(flow, coalesce(t.run_id, t.waiting_run_id)) from unnest(turn) t
      where num_nonnulls(t.run_id, t.waiting_run_id) > 0;
    elsif flow.singleton_when_busy = 'replace' then
      perform pgflow.cancel_singletons(
        flow, array(select t.run_id from unnest(turn) t) || array(select t.waiting_run_id from unnest(turn) t),
        'replaced by a newer run', is_client
      );
    else
      perform pgflow.cancel_singletons(
        flow, array(select t.waiting_run_id from unnest(turn) t), 'superseded by a newer run that waits in its place', is_client
      );
      perform pgflow.start_waiting_runs(
        flow, array(select t from unnest(turn) t where t.run_id is not null or flow.singleton_wait > 0),
        owner_id, group_id, metadata, priority, as_of, delay
      );
    end if;
    perform pgflow.start_singletons_now(
      flow,
      array(
        select t from unnest(turn) t
        where case flow.singleton_when_busy
          when 'return' then num_nonnulls(t.run_id, t.waiting_run_id) = 0
          when 'after' then t.run_id is null and flow.singleton_wait is null
          else true
        end
      ),
      owner_id, group_id, metadata, delay, priority
    );
    ns := ns || array(select t.n from unnest(turn) t);
    answers := answers || array(select t.new_run_id from unnest(turn) t);
  end loop;

  return query
    select run.*
    from (
      select a.n, own as run from unnest(ns, answers) a (n, run_id) join pgflow.runs own using (run_id)
      union all
      select o.n, existing as run
      from unnest(others) o
      cross join lateral pgflow.existing_run(
        flow, o.new_run_id, o.input, o.idempotency_key, owner_id, group_id, metadata, delay, priority, is_client
      ) existing
    ) answer
    cross join lateral (select (answer.run).*) run
    order by answer.n;
end
$$;

-- Locks keys of an alias, in one order, and makes those that there are not. It waits for other starts of them.
create function pgflow.lock_keys(alias text, keys text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A row that is there is locked by this, and stays as it is.
  insert into pgflow.run_singletons as s (alias, key)
  select lock_keys.alias, k from unnest(lock_keys.keys) k order by k
  on conflict on constraint run_singletons_pkey do update set begins_at = s.begins_at where false;
end
$$;

-- Locks the keys of runs that a schedule starts, and the runs that they may replace; false where another transaction holds one of them,
-- since a tick waits for nobody. Nothing is locked for a flow without singletons.
create function pgflow.try_to_lock_keys(alias text, inputs jsonb[])
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '20ms'
as $$
declare
  flow pgflow.flows;
  keys text[];
begin
  select f.* into flow from pgflow.flows f where f.flow_slug = pgflow.newest_version(try_to_lock_keys.alias);
  if flow.singleton_when_busy is not null then
    keys := array(select distinct pgflow.singleton_key(flow, i) from unnest(inputs) i);
    perform pgflow.lock_keys(flow.alias, keys);
    perform from pgflow.runs r
    where r.run_id in (
      select one.run_id
      from pgflow.run_singletons s
      cross join unnest(array[s.run_id, s.waiting_run_id]) one (run_id)
      where s.alias = flow.alias and s.key = any (keys)
    )
    order by r.run_id
    for no key update;
  end if;
  return true;
exception
  when lock_not_available then return false;
end
$$;

-- The starts with the runs of their keys that go on and wait at this moment.
create function pgflow.starts_by_now(alias text, starts pgflow.singleton_start[])
returns pgflow.singleton_start[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(
      t.n, t.turn, t.key, t.new_run_id, t.input, t.idempotency_key,
      (select r.run_id from pgflow.runs r where r.run_id = s.run_id and r.status = 'started'),
      (select r.run_id from pgflow.runs r where r.run_id = s.waiting_run_id and r.status = 'started')
    )::pgflow.singleton_start
    from unnest(starts) t
    left join pgflow.run_singletons s on s.alias = starts_by_now.alias and s.key = t.key
    order by t.n
  );
end
$$;

-- Begins runs of keys that are free by now.
create function pgflow.start_singletons_now(
  flow pgflow.flows,
  starts pgflow.singleton_start[],
  owner_id uuid,
  group_id uuid,
  metadata jsonb,
  delay int,
  priority text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(starts) = 0 then
    return;
  end if;
  insert into pgflow.run_singletons as s (alias, key, run_id)
  select flow.alias, t.key, t.new_run_id from unnest(starts) t order by t.key
  on conflict on constraint run_singletons_pkey do update
  set run_id = excluded.run_id, waiting_run_id = null, begins_at = null;
  perform pgflow.start_runs(
    flow.flow_slug, array(select t.new_run_id from unnest(starts) t), array(select t.input from unnest(starts) t),
    array(select t.idempotency_key from unnest(starts) t), owner_id, group_id, metadata, delay, priority, is_decided => true
  );
end
$$;

-- Makes runs that wait: for another run, or first for a time.
create function pgflow.start_waiting_runs(
  flow pgflow.flows,
  starts pgflow.singleton_start[],
  owner_id uuid,
  group_id uuid,
  metadata jsonb,
  priority text,
  as_of timestamptz,
  delay int
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  first_at timestamptz := as_of + nullif(make_interval(secs => coalesce(flow.singleton_wait, 0)::float8 + delay), '0');
begin
  if cardinality(starts) = 0 then
    return;
  end if;
  insert into pgflow.run_singletons as s (alias, key, run_id, waiting_run_id, begins_at)
  select flow.alias, t.key, t.run_id, t.new_run_id, first_at from unnest(starts) t order by t.key
  on conflict on constraint run_singletons_pkey do update
  set waiting_run_id = excluded.waiting_run_id, begins_at = excluded.begins_at;
  -- One statement, so that the trigger of runs finds their steps.
  with run as (
    insert into pgflow.runs (
      run_id, flow_slug, input, owner_id, group_id, idempotency_key, metadata, started_at, priority, waits_for
    )
    select t.new_run_id, flow.flow_slug, t.input, start_waiting_runs.owner_id, start_waiting_runs.group_id, t.idempotency_key,
           start_waiting_runs.metadata, as_of, coalesce(start_waiting_runs.priority, flow.priority),
           case when first_at is null then 'run' else 'time' end
    from unnest(starts) t
    order by t.n
    returning run_id
  )
  insert into pgflow.step_states (run_id, step_slug, flow_slug, remaining_deps, created_at)
  select r.run_id, s.step_slug, s.flow_slug, s.deps_count, as_of
  from run r
  cross join pgflow.steps s
  where s.flow_slug = flow.flow_slug;
  if first_at is not null then
    insert into pgflow.alarms (due_at, kind, run_id)
    select first_at, 'begin', t.new_run_id from unnest(starts) t;
    perform pgflow.notify_workers(array(select t.new_run_id from unnest(starts) t)); -- so that their clocks know of it
  end if;
end
$$;

-- Of starts that are answered with the run that goes on or waits, that run in the place of a new one. It is locked against being
-- deleted before it has been read.
create function pgflow.return_singletons(flow pgflow.flows, starts pgflow.singleton_start[], is_client boolean)
returns pgflow.singleton_start[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  kept uuid[] := array(
    select r.run_id from pgflow.runs r
    where r.run_id in (select one.run_id from unnest(starts) t cross join unnest(array[t.run_id, t.waiting_run_id]) one (run_id))
    order by r.run_id
    for key share
  );
begin
  starts := array(
    select row(
      t.n, t.turn, t.key, t.new_run_id, t.input, t.idempotency_key,
      case when t.run_id = any (kept) then t.run_id end, case when t.waiting_run_id = any (kept) then t.waiting_run_id end
    )::pgflow.singleton_start
    from unnest(starts) t
  );
  if is_client then
    perform pgflow.assert_may_all(flow, array(select coalesce(t.run_id, t.waiting_run_id) from unnest(starts) t), 'view');
  end if;
  delete from pgflow.run_keys k using unnest(starts) t
  where k.run_id = t.new_run_id and t.idempotency_key is not null and num_nonnulls(t.run_id, t.waiting_run_id) > 0;
  return array(
    select row(
      t.n, t.turn, t.key, coalesce(t.run_id, t.waiting_run_id, t.new_run_id), t.input, t.idempotency_key, t.run_id, t.waiting_run_id
    )::pgflow.singleton_start
    from unnest(starts) t
  );
end
$$;

-- Cancels runs to whose keys there are newer starts, in the order of their ids; those that have ended meanwhile stay as they are.
create function pgflow.cancel_singletons(flow pgflow.flows, run_ids uuid[], reason text, is_client boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
begin
  if num_nonnulls(variadic run_ids) = 0 then
    return;
  end if;
  if is_client then
    perform pgflow.assert_may_all(flow, run_ids, 'cancel');
  end if;
  for run in select r.* from pgflow.runs r where r.run_id = any (run_ids) order by r.run_id for no key update loop
    if run.status = 'started' then
      perform pgflow.cancel_run(run.run_id, reason);
    end if;
  end loop;
end
$$;

-- Raises PT409 where the caller may not view, or not cancel, one of the runs that a start has met. It does not name the run.
create function pgflow.assert_may_all(flow pgflow.flows, run_ids uuid[], action text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from unnest(run_ids) r (run_id) where r.run_id is not null and not pgflow.caller_may(r.run_id, action)
  ) then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" has a run already that you may not %s', flow.alias, action),
      detail = 'it has one run at a time' || coalesce(format(' for each value at %s', flow.singleton_path), ''),
      hint = 'Wait until it has ended. The project decides in pgflow.can_access_run who may see and cancel it.';
  end if;
end
$$;

-- Raises PT409 for a start while another run goes on; those who may see it are told which.
create function pgflow.refuse_singleton(flow pgflow.flows, run_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT409',
    message = format('flow "%s" has a run already', flow.alias)
      || case when pgflow.caller_may(refuse_singleton.run_id, 'view') then format(': %s', refuse_singleton.run_id) else '' end,
    detail = 'it has one run at a time' || coalesce(format(' for each value at %s', flow.singleton_path), ''),
    hint = 'Wait until it has ended, or cancel it.';
end
$$;

-- Takes the key of a run that has failed or was cancelled, for retry_run; PT409 where another run has it. Answers whether it has one.
create function pgflow.take_key_again(run_id uuid)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  flow pgflow.flows;
  key_again text;
  other uuid;
begin
  select f.* into flow
  from pgflow.runs r join pgflow.flows f using (flow_slug)
  where r.run_id = take_key_again.run_id and f.singleton_when_busy is not null and r.status in ('failed', 'cancelled');
  if not found then
    return false;
  end if;
  key_again := (select pgflow.singleton_key(flow, r.input) from pgflow.runs r where r.run_id = take_key_again.run_id);
  perform pgflow.lock_keys(flow.alias, array[key_again]);
  other := (
    select r.run_id
    from pgflow.run_singletons s
    cross join unnest(array[s.run_id, s.waiting_run_id]) with ordinality one (run_id, n)
    join pgflow.runs r on r.run_id = one.run_id
    where s.alias = flow.alias and s.key = key_again and r.status = 'started' and r.run_id <> take_key_again.run_id
    order by one.n
    limit 1
  );
  if other is not null then
    raise exception using
      errcode = 'PT409',
      message = format('run %s cannot be retried: flow "%s" has another run', take_key_again.run_id, flow.alias)
        || case when pgflow.caller_may(other, 'view') then format(', %s', other) else '' end,
      detail = 'it has one run at a time' || coalesce(format(' for each value at %s', flow.singleton_path), ''),
      hint = 'Wait until it has ended, or cancel it.';
  end if;
  update pgflow.run_singletons s set run_id = take_key_again.run_id, waiting_run_id = null, begins_at = null
  where s.alias = flow.alias and s.key = key_again;
  return true;
end
$$;

-- Frees the keys of runs that have ended or are deleted, whose locks the caller holds. A run that waits begins by an alarm. A key that
-- another transaction has is left to an alarm for the run that has ended.
create function pgflow.free_singletons(ended uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  as_of timestamptz := pgflow.now();
  called uuid[];
begin
  with
    ended_run as (
      select s.alias, s.key, e.run_id from unnest(ended) e (run_id) join pgflow.run_singletons s on s.run_id = e.run_id
      union all
      select s.alias, s.key, e.run_id from unnest(ended) e (run_id) join pgflow.run_singletons s on s.waiting_run_id = e.run_id
    ),
    locked as materialized (
      select s.*, s.run_id is null or s.run_id = any (ended) as is_free, s.waiting_run_id <> all (ended) as is_awaited
      from (select distinct e.alias, e.key from ended_run e) k
      join pgflow.run_singletons s using (alias, key)
      for update of s skip locked
    ),
    gone as (
      delete from pgflow.run_singletons s using locked l
      where (s.alias, s.key) = (l.alias, l.key) and l.is_free and l.is_awaited is not true
    ),
    cleared as (
      update pgflow.run_singletons s set waiting_run_id = null, begins_at = null
      from locked l
      where (s.alias, s.key) = (l.alias, l.key) and not l.is_free and l.is_awaited is not true
    ),
    alarm as (
      insert into pgflow.alarms (due_at, kind, run_id)
      select greatest(as_of, l.begins_at), 'begin', l.waiting_run_id from locked l where l.is_free and l.is_awaited
      union all
      select as_of + interval '50 milliseconds', 'begin', e.run_id
      from ended_run e
      where not exists (select from locked l where (l.alias, l.key) = (e.alias, e.key))
      returning run_id
    )
  select array_agg(a.run_id) into called from alarm a;
  if called is not null then
    perform pgflow.notify_workers(called);
  end if;
end
$$;

-- Begins up to `quantity` runs that have waited for a time or another run, whose alarms are due; answers how many. It waits for
-- nobody: where another transaction has a key or a run, the alarm is set again, 50 ms later. An alarm names a run that waits, or one
-- that has ended, maybe deleted since: the key is found by either.
create function pgflow.begin_runs(quantity int)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  as_of timestamptz := pgflow.now();
  called uuid[];
  locked pgflow.run_singletons[];
  held uuid[];
  begun uuid[];
begin
  with
    due as (
      select a.due_at, a.alarm_id from pgflow.alarms a
      where a.due_at <= as_of and a.kind = 'begin'
      order by a.due_at, a.alarm_id
      limit greatest(begin_runs.quantity, 0)
      for update skip locked
    ),
    taken as (
      delete from pgflow.alarms a using due d where (a.due_at, a.alarm_id) = (d.due_at, d.alarm_id) returning a.run_id
    )
  select array_agg(distinct t.run_id) into called from taken t;
  if called is null then
    return 0;
  end if;
  locked := array(
    select s
    from (
      select s.alias, s.key from pgflow.run_singletons s where s.run_id = any (called)
      union
      select s.alias, s.key from pgflow.run_singletons s where s.waiting_run_id = any (called)
    ) k
    join pgflow.run_singletons s using (alias, key)
    order by s.alias, s.key
    for update of s skip locked
  );
  -- Each in a statement of its own, which sees what was committed before it had the locks.
  held := array(
    select r.run_id from pgflow.runs r
    where r.run_id in (select l.waiting_run_id from unnest(locked) l) and r.status = 'started'
    order by r.run_id
    for no key update skip locked
  );
  with
    key as materialized (
      select l.alias, l.key, l.run_id, l.waiting_run_id,
             exists (select from pgflow.runs r where r.run_id = l.run_id and r.status = 'started') as goes_on,
             exists (select from pgflow.runs r where r.run_id = l.waiting_run_id and r.status = 'started') as is_awaited,
             l.waiting_run_id = any (held) as is_held,
             coalesce(l.begins_at <= as_of, true) as is_time
      from unnest(locked) l
    ),
    gone as (
      delete from pgflow.run_singletons s using key k
      where (s.alias, s.key) = (k.alias, k.key) and not k.goes_on and not k.is_awaited
    ),
    changed as (
      update pgflow.run_singletons s
      set run_id = case when k.goes_on then s.run_id else k.waiting_run_id end, waiting_run_id = null, begins_at = null
      from key k
      where (s.alias, s.key) = (k.alias, k.key)
        and case when k.goes_on then k.waiting_run_id is not null and not k.is_awaited else k.is_held and k.is_time end
    ),
    waits as (
      update pgflow.runs r
      set waits_for = case when k.goes_on then 'run' end
      from key k
      where r.run_id = k.waiting_run_id and k.is_held and k.is_time and (not k.goes_on or r.waits_for <> 'run')
      returning r.run_id, r.waits_for
    ),
    again as (
      insert into pgflow.alarms (due_at, kind, run_id)
      select as_of + interval '50 milliseconds', 'begin', k.waiting_run_id from key k where k.is_awaited and not k.is_held
      union all
      select as_of + interval '50 milliseconds', 'begin', c
      from unnest(called) c
      where exists (
        select from pgflow.run_singletons s
        where s.run_id = c and (s.alias, s.key) not in (select k.alias, k.key from key k)
        union all
        select from pgflow.run_singletons s
        where s.waiting_run_id = c and (s.alias, s.key) not in (select k.alias, k.key from key k)
      )
    )
  select array_agg(w.run_id) filter (where w.waits_for is null) into begun from waits w;
  if begun is null then
    return 0;
  end if;
  perform pgflow.set_deadlines(begun, as_of);
  perform pgflow.advance(
    pgflow.decide(
      array(
        select row(ss.run_id, ss.step_slug)::pgflow.step_key
        from pgflow.step_states ss
        where ss.run_id = any (begun) and ss.status = 'created' and ss.remaining_deps = 0
      ),
      as_of
    ),
    as_of
  );
  return cardinality(begun);
end
$$;

-- Begins what is due, for claims, which an error must not stop: it stays due, and tick raises it.
create function pgflow.try_to_begin_runs()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.begin_runs(100);
exception
  when others then
    raise warning using message = 'runs that wait could not begin', detail = sqlerrm;
end
$$;
