-- Chapter 22: the clock. `tick` settles what is due, admits tasks to slots, begins and ends runs whose time has come.
--
-- What has to be looked at from a time on is a row of `alarms`. Whoever writes one waits for nobody; whoever takes one deletes it
-- in the transaction that does what it is for, so that none is lost.

-- Settles up to `quantity` tasks that are due; where nothing is, it calls the functions of SQL steps that are. Anybody may call it at any
-- time, several at once too. Answers how many it has settled or called, and when something is due next, which may be now.
--   select * from pgflow.tick();
create function pgflow.tick(quantity int default 1000, out settled int, out next_due_at timestamptz)
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
as $$
begin
  settled := pgflow.settle_due(tick.quantity);
  -- Alone in its transaction: what it calls may take long.
  if settled = 0 then
    settled := pgflow.call_functions(tick.quantity);
  end if;
  next_due_at := pgflow.next_due_at();
end
$$;
comment on function pgflow.tick is
  'Settles waits and sleeps that are due, ends what has exceeded its deadline, starts schedules that are due, and calls functions of SQL steps; answers how many, and when something is due next. Callable by anybody, at any time.';

-- Settles up to `quantity` tasks that are due: sleeps complete; waits that have timed out fail, are skipped or complete, as their
-- step says. It calls no function of SQL steps. Runs that another transaction has locked are left for the next call. Answers how many.
create function pgflow.settle_due(quantity int default 1000)
returns int
language plpgsql
security definer -- workers with a secret key have no rights on the tables
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
  due pgflow.step_key[] := array(
    select row(d.run_id, d.step_slug)::pgflow.step_key
    from (
      select t.run_id, t.step_slug
      from pgflow.step_tasks t
      join pgflow.runs r using (run_id)
      where t.due_at <= as_of and t.slot_keys is null and r.status = 'started'
      order by t.due_at
      limit greatest(settle_due.quantity, 0)
      for no key update of r skip locked
    ) d
  );
  results pgflow.task_result[];
  outputs jsonb;
  done pgflow.settled_task[];
  settled int := 0;
begin
  if cardinality(due) > 0 then
    -- Looked up again, now that the runs are locked.
    select array_agg(row(
             t.run_id, t.step_slug, t.task_index, null,
             case when s.step_type = 'wait' and s.when_timed_out <> 'complete' then 'the wait has timed out' end, null, true, null
           )::pgflow.task_result),
           jsonb_agg(jsonb_build_object('output', s.timed_out_output))
    into results, outputs
    from unnest(due) k
    join pgflow.step_tasks t using (run_id, step_slug)
    join pgflow.steps s using (flow_slug, step_slug)
    where t.due_at <= as_of and t.slot_keys is null;
    done := array(
      select d from pgflow.record_results(array(select distinct k.run_id from unnest(due) k), results, outputs, as_of) d
    );
    settled := cardinality(done);
    if settled > 0 then
      perform pgflow.advance(pgflow.changes_of_due(done), as_of, outputs => outputs);
      perform pgflow.release_messages(done);
    end if;
  end if;
  if exists (select from pgflow.alarms a where a.due_at <= as_of) or exists (
    select from pgflow.step_tasks t where t.due_at <= as_of and t.slot_keys is not null
  ) then
    -- Slots are admitted last: that locks tasks without their runs.
    settled := settled + pgflow.end_overdue(settle_due.quantity) + pgflow.begin_runs(settle_due.quantity) + pgflow.tend_children(settle_due.quantity)
      + pgflow.begin_undos(settle_due.quantity) + pgflow.admit_tasks(settle_due.quantity);
  end if;
  if exists (select from pgflow.schedules s where s.due_at <= as_of) then
    settled := settled + (select s.started from pgflow.start_due_schedules(settle_due.quantity) s);
  end if;
  return settled;
end
$$;
comment on function pgflow.settle_due is
  'Does what a tick does, without calling functions of SQL steps; answers how many it has settled.';

-- The alarms of runs whose flows have a deadline, which begin at a time.
create function pgflow.set_deadlines(run_ids uuid[], since timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgflow.alarms (due_at, kind, run_id)
  select set_deadlines.since + make_interval(secs => f.opt_deadline), 'deadline', r.run_id
  from unnest(set_deadlines.run_ids) k (run_id)
  join pgflow.runs r using (run_id)
  join pgflow.flows f using (flow_slug)
  where f.opt_deadline is not null;
end
$$;

-- Ends up to `quantity` runs and steps whose deadlines have passed: a run fails; when_exhausted says what becomes of a step. Answers
-- how many. An alarm only says that something has to be looked at: the run or step may have ended, or have another deadline since it
-- was retried. A run that another transaction has locked is looked at again 50 ms later.
create function pgflow.end_overdue(quantity int)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
  due pgflow.step_key[] := pgflow.overdue(end_overdue.quantity, as_of);
  locked uuid[];
  runs uuid[];
  steps pgflow.step_key[];
begin
  if due is null then
    return 0;
  end if;
  locked := pgflow.lock_runs(array(select distinct d.run_id from unnest(due) d), wait => false);
  with
    deadline as (
      select d.run_id, d.step_slug, case
          when d.run_id <> all (locked) then as_of + interval '50 milliseconds'
          when d.step_slug is null then (
            select max(e.at) from pgflow.run_events e
            where e.run_id = d.run_id and e.type in ('run:started', 'run:begun', 'run:retried')
          ) + make_interval(secs => (select f.opt_deadline from pgflow.flows f where f.flow_slug = r.flow_slug))
          else (
            select ss.started_at from pgflow.step_states ss
            where ss.run_id = d.run_id and ss.step_slug = d.step_slug and ss.status = 'started'
          ) + make_interval(secs => (
            select s.opt_deadline from pgflow.steps s where s.flow_slug = r.flow_slug and s.step_slug = d.step_slug
          ))
        end as due_at
      from unnest(due) d
      join pgflow.runs r using (run_id)
    ),
    again as (
      insert into pgflow.alarms (due_at, kind, run_id, step_slug)
      select d.due_at, 'deadline', d.run_id, d.step_slug from deadline d where d.due_at > as_of
    )
  select coalesce(array_agg(d.run_id) filter (where d.step_slug is null), '{}'),
         array_agg(row(d.run_id, d.step_slug)::pgflow.step_key) filter (where d.step_slug is not null)
  into runs, steps
  from deadline d
  where d.due_at <= as_of;
  steps := array(select s from unnest(steps) s where s.run_id <> all (runs));
  perform pgflow.fail_runs(runs, as_of);
  perform pgflow.advance(pgflow.changes_of_overdue(steps), as_of);
  return cardinality(runs) + cardinality(steps);
end
$$;

-- The runs and steps that go on and whose alarms are due, which it takes, up to `quantity`. Of the next ten seconds it takes those
-- that would come in vain, too, so that the clock does not have to strike for each of them.
create function pgflow.overdue(quantity int, as_of timestamptz)
returns pgflow.step_key[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  due pgflow.step_key[];
  taken bigint;
begin
  for round in 1 .. 100 loop
    with alarm as (
      delete from pgflow.alarms a
      where a.ctid = any (array(
        select d.ctid
        from (
          select n.due_at, n.alarm_id from pgflow.alarms n
          where n.due_at <= overdue.as_of + interval '10 seconds' and n.kind = 'deadline'
          order by n.due_at, n.alarm_id
          limit greatest(overdue.quantity, 0)
        ) near
        join pgflow.alarms d using (due_at, alarm_id)
        where d.due_at <= overdue.as_of
          or not exists (select from pgflow.runs r where r.run_id = d.run_id and r.status = 'started')
          or d.step_slug is not null and not exists (
            select from pgflow.step_states ss
            where ss.run_id = d.run_id and ss.step_slug = d.step_slug and ss.status = 'started'
          )
        for update of d skip locked
      ))
      returning a.run_id, a.step_slug
    )
    select count(*), array_agg(distinct row(a.run_id, a.step_slug)::pgflow.step_key) filter (
             where exists (select from pgflow.runs r where r.run_id = a.run_id and r.status = 'started')
           )
    into taken, due
    from alarm a;
    exit when due is not null or taken < greatest(overdue.quantity, 1);
  end loop;
  return due;
end
$$;

-- What becomes of steps whose deadlines have passed.
create function pgflow.changes_of_overdue(steps pgflow.step_key[])
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(c.*)::pgflow.step_change
    from unnest(changes_of_overdue.steps) k
    join pgflow.step_states ss using (run_id, step_slug)
    join pgflow.steps s using (flow_slug, step_slug)
    cross join lateral (
      select ss.run_id, s.flow_slug, s.step_slug,
             case s.when_exhausted when 'fail' then 'failed' else 'skipped' end as change,
             null::bigint as result_n,
             format('step "%s" has exceeded its deadline of %s s', s.step_slug, s.opt_deadline) as error,
             case when s.when_exhausted <> 'fail' then 'attempts_exhausted' end as skip_reason,
             s.when_exhausted = 'skip-cascade' as cascade,
             0 as tasks,
             null::int as items,
             null::int as retries,
             null::timestamptz as retry_at,
             null::text as waits_for,
             null::timestamptz as due_at
    ) c
  );
end
$$;

-- Fails whole runs, whose deadlines have passed, and closes all that is open under them.
create function pgflow.fail_runs(run_ids uuid[], as_of timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(run_ids) = 0 then
    return;
  end if;
  update pgflow.step_states ss set status = 'cancelled'
  where ss.run_id = any (fail_runs.run_ids) and ss.status in ('created', 'started');
  perform pgflow.close_tasks(fail_runs.run_ids);
  update pgflow.runs r
  set status = 'failed',
      error = format('the run has exceeded its deadline of %s s', f.opt_deadline),
      failed_at = fail_runs.as_of,
      waits_for = null
  from pgflow.flows f
  where r.run_id = any (fail_runs.run_ids) and f.flow_slug = r.flow_slug;
end
$$;

-- What tasks that are due mean for their steps.
create function pgflow.changes_of_due(settled pgflow.settled_task[])
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(row(c.*)::pgflow.step_change)
    from unnest(changes_of_due.settled) d
    join pgflow.steps s on s.flow_slug = d.flow_slug and s.step_slug = d.step_slug
    cross join lateral (
      select case when d.outcome = 'completed' then 'completed' when s.when_timed_out = 'fail' then 'failed' else 'skipped' end
    ) as next (change)
    cross join lateral (
      select d.run_id, d.flow_slug, d.step_slug, next.change,
             case next.change when 'completed' then d.n end as result_n,
             d.error,
             case next.change when 'skipped' then 'timed_out' end as skip_reason,
             s.when_timed_out = 'skip-cascade' and next.change = 'skipped' as cascade,
             case next.change when 'completed' then 1 else 0 end as tasks,
             null::int as items,
             null::int as retries,
             null::timestamptz as retry_at,
             null::text as waits_for,
             null::timestamptz as due_at
    ) c
  );
end
$$;

-- When something is due next: a wait, a sleep, a schedule or a function to call; null where nothing waits for a time. In the past where something is due already.
--   select pgflow.next_due_at();
create function pgflow.next_due_at()
returns timestamptz
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return least(
    (select t.due_at from pgflow.step_tasks t where t.due_at is not null order by t.due_at limit 1),
    (select a.due_at from pgflow.alarms a order by a.due_at limit 1),
    (select s.due_at from pgflow.schedules s where s.paused_at is null order by s.due_at limit 1)
  );
end
$$;
comment on function pgflow.next_due_at is 'When the next wait, sleep, schedule or call of a function is due; null where nothing waits for a time.';

-- The same in seconds from now, for workers, whose clocks may differ. Functions to call have their own, next_call_in.
create function pgflow.next_due_in()
returns float8
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return extract(epoch from least(
    (select t.due_at from pgflow.step_tasks t where t.due_at is not null order by t.due_at limit 1),
    (
      select min(a.due_at)
      from unnest(array['slot', 'deadline', 'begin', 'child', 'ended', 'cancel', 'retried', 'undo']) of (kind)
      cross join lateral (
        -- In this order no plan passes over alarms of another kind, whatever the statistics say.
        select n.kind, n.due_at from pgflow.alarms n
        where (n.kind, n.due_at) >= (of.kind, '-infinity'::timestamptz)
        order by n.kind, n.due_at
        limit 1
      ) a
      where a.kind = of.kind
    ),
    (select s.due_at from pgflow.schedules s where s.paused_at is null order by s.due_at limit 1)
  ) - pgflow.now());
end
$$;
comment on function pgflow.next_due_in is 'Seconds until the next wait, sleep or schedule is due; null where nothing waits for a time.';
