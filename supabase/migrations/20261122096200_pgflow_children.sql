-- Chapter 19: sub-flows. A step of a run starts runs of another flow, its children, and ends when they have ended.
--
-- The task of a sub-flow is `waiting` for a run, whose id it has from the beginning (`child_run_id`). It has begun when it has an attempt
-- that counts: when its child was started, or, after a retry of the parent, was retried or found as it is. What has begun and has no child
-- any more has lost it: the child was deleted.
--
-- Parents and children tell each other by alarms, which whoever ends, retries or deletes one of them writes, waiting for nobody:
--
--   child    (run, step)  the tasks of this step have to begin
--   ended    (run)        this child has ended: the task of its parent is settled
--   ended    (run, step)  children of this step were deleted, or may have ended unnoticed
--   cancel   (run)        the parent of this child has ended, or needs it no more
--   retried  (run)        this child was retried: its parent, if it has failed, goes on
--
-- Tasks that are looked up by their keys are asked `waits_for is not distinct from 'run'`: with `=`, Postgres would prefer the index of those that wait for
-- runs, and read all of it.
--
-- `tend_children` takes them: each worker with its next exchange, and each tick. It waits for no lock, neither of a parent nor of a child: what
-- somebody else holds is looked at again 20 ms later.

-- The tasks of sub-flow steps that have started: each waits for a run. Those of limited steps are made by create_slot_tasks.
create function pgflow.create_child_tasks(steps pgflow.step_key[], as_of timestamptz, delay int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  own pgflow.step_key[] := array(
    select k
    from unnest(create_child_tasks.steps) k
    join pgflow.step_states ss using (run_id, step_slug)
    join pgflow.steps s using (flow_slug, step_slug)
    where s.child_flow is not null and not s.is_limited and ss.status = 'started'
  );
begin
  if cardinality(own) = 0 then
    return;
  end if;
  with
    item as (
      select ss.run_id, ss.step_slug, ss.flow_slug, i.task_index, i.input,
             row_number() over (order by ss.run_id, s.step_index, i.task_index) as n
      from unnest(own) k
      join pgflow.step_states ss using (run_id, step_slug)
      join pgflow.steps s using (flow_slug, step_slug)
      cross join lateral pgflow.items_of(ss.run_id, s) i
    ),
    new as materialized (
      select pgflow.new_run_ids((select count(*)::int from item), create_child_tasks.as_of) as ids
    )
  insert into pgflow.step_tasks as old (run_id, step_slug, task_index, flow_slug, status, waits_for, input, queued_at, child_run_id)
  select i.run_id, i.step_slug, i.task_index, i.flow_slug, 'waiting', 'run', i.input, create_child_tasks.as_of, new.ids[i.n]
  from item i
  cross join new
  on conflict (run_id, step_slug, task_index) do update
  set status = 'waiting',
      waits_for = 'run',
      child_run_id = case
        -- One that was undone is over; another takes its place.
        when (select c.undo from pgflow.runs c where c.run_id = old.child_run_id) = 'begun' then excluded.child_run_id
        else old.child_run_id
      end,
      attempts_before = old.attempts_count,
      error_message = null,
      queued_at = excluded.queued_at,
      failed_at = null;
  insert into pgflow.alarms (due_at, kind, run_id, step_slug)
  select create_child_tasks.as_of + make_interval(secs => coalesce(s.opt_start_delay, 0)::float8 + create_child_tasks.delay),
         'child', k.run_id, k.step_slug
  from unnest(own) k
  join pgflow.step_states ss using (run_id, step_slug)
  join pgflow.steps s using (flow_slug, step_slug);
end
$$;

-- Of tasks that get their slots, lets those of sub-flows wait for a run, and answers with the others, which get a message.
create function pgflow.admit_children(admitted pgflow.slot_task[], as_of timestamptz)
returns pgflow.slot_task[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from unnest(admitted) a where a.is_child) then
    return admitted;
  end if;
  update pgflow.step_tasks t set waits_for = 'run', queued_at = admit_children.as_of
  from unnest(admitted) a
  where a.is_child and (t.run_id, t.step_slug, t.task_index) = (a.run_id, a.step_slug, a.task_index);
  insert into pgflow.alarms (due_at, kind, run_id, step_slug)
  select distinct admit_children.as_of, 'child', a.run_id, a.step_slug from unnest(admitted) a where a.is_child;
  perform pgflow.notify_workers(array(select a.run_id from unnest(admitted) a where a.is_child));
  return array(select a from unnest(admitted) a where not a.is_child);
end
$$;

-- Gives notice that children are no longer needed, since the tasks that wait for them are closed; those of steps with
-- when_parent_ends = leave go on.
create function pgflow.give_up_children(run_ids uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgflow.alarms (due_at, kind, run_id)
  select pgflow.now(), 'cancel', c.run_id
  from unnest(give_up_children.run_ids) k (run_id)
  join pgflow.runs c using (run_id)
  join pgflow.runs parent on parent.run_id = c.parent_run_id
  join pgflow.steps s on s.flow_slug = parent.flow_slug and s.step_slug = c.parent_step_slug
  where c.status = 'started' and s.when_parent_ends = 'cancel';
end
$$;

-- Starts, cancels and retries children, and settles the tasks of those that have ended, up to about `quantity`; answers how many. It waits for no lock.
create function pgflow.tend_children(quantity int)
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
  as_of timestamptz;
  taken pgflow.alarms[];
  done int := 0;
begin
  -- What one round does may be for the next one: the end of a child ends its parent, which is a child itself.
  for round in 1 .. 20 loop
    exit when done >= tend_children.quantity;
    as_of := pgflow.now();
    taken := pgflow.take_child_alarms(tend_children.quantity - done, as_of);
    exit when taken is null;
    done := done + pgflow.look_at_children(taken, tend_children.quantity - done, as_of);
    if exists (select from unnest(taken) a where a.kind = 'cancel') then
      done := done + pgflow.cancel_children(taken, as_of);
    end if;
    if exists (select from unnest(taken) a where a.kind = 'retried') then
      done := done + pgflow.retry_parents(taken, as_of);
    end if;
  end loop;
  return done;
end
$$;

-- The same for workers' exchanges, which an error must not stop: the alarms stay due, and tick raises it.
create function pgflow.try_to_tend_children()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.tend_children(250);
exception
  when others then
    raise warning using message = 'sub-flows could not be tended', detail = sqlerrm;
end
$$;

-- Takes up to `quantity` alarms of parents and children that are due; null where there are none.
create function pgflow.take_child_alarms(quantity int, as_of timestamptz)
returns pgflow.alarms[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  taken pgflow.alarms[];
begin
  with
    due as (
      select a.due_at, a.alarm_id from pgflow.alarms a
      where a.due_at <= take_child_alarms.as_of and a.kind in ('child', 'ended', 'cancel', 'retried')
      order by a.due_at, a.alarm_id
      limit greatest(take_child_alarms.quantity, 0)
      for update skip locked
    ),
    alarm as (
      delete from pgflow.alarms a using due d where (a.due_at, a.alarm_id) = (d.due_at, d.alarm_id) returning a.*
    )
  select array_agg(row(a.*)::pgflow.alarms) into taken from alarm a;
  return taken;
end
$$;

create type pgflow.child_task as (
  run_id uuid,
  step_slug text,
  task_index int,
  child_run_id uuid,
  child_status text
);
comment on type pgflow.child_task is 'A task that waits for a run, and the status of that run; null where there is none.';

-- Settles the tasks whose children have ended, and begins those that have not begun, of parents that nobody else holds; answers how many.
create function pgflow.look_at_children(alarms pgflow.alarms[], quantity int, as_of timestamptz)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  parents uuid[] := array(
    select a.run_id from unnest(alarms) a where a.kind = 'child' or a.kind = 'ended' and a.step_slug is not null
    union
    select c.parent_run_id from unnest(alarms) a join pgflow.runs c using (run_id)
    where a.kind = 'ended' and a.step_slug is null and c.depth > 0
  );
  locked uuid[];
  ended pgflow.child_task[];
  ready pgflow.child_task[];
  done int;
begin
  if cardinality(parents) = 0 then
    return 0;
  end if;
  locked := pgflow.lock_runs(parents, wait => false);
  if cardinality(locked) < cardinality(parents) then
    insert into pgflow.alarms (due_at, kind, run_id, step_slug)
    select look_at_children.as_of + interval '20 milliseconds', a.kind, a.run_id, a.step_slug
    from unnest(alarms) a
    left join pgflow.runs c on c.run_id = a.run_id and a.kind = 'ended' and a.step_slug is null
    join pgflow.runs parent on parent.run_id = coalesce(c.parent_run_id, a.run_id)
    where a.kind in ('child', 'ended') and parent.status = 'started' and parent.run_id <> all (locked);
    if cardinality(locked) = 0 then
      return 0;
    end if;
  end if;
  ended := pgflow.ended_children(alarms, locked, quantity);
  ready := pgflow.children_to_begin(alarms, locked, quantity, as_of);
  done := pgflow.settle_children(
    ended || array(select r from unnest(ready) r where r.child_status = 'completed'), locked, as_of
  );
  return done + pgflow.begin_children(array(select r from unnest(ready) r where r.child_status is distinct from 'completed'), as_of);
end
$$;

-- The tasks that have begun and whose children have ended, or are gone, as the alarms say. Those that are too many are left to another alarm.
create function pgflow.ended_children(alarms pgflow.alarms[], locked uuid[], quantity int)
returns pgflow.child_task[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  tasks pgflow.child_task[];
begin
  tasks := array(
    select row(t.run_id, t.step_slug, t.task_index, c.run_id, c.status)::pgflow.child_task
    from (select distinct a.run_id from unnest(alarms) a where a.kind = 'ended' and a.step_slug is null) a
    join pgflow.runs c using (run_id)
    join pgflow.step_tasks t
      on t.run_id = c.parent_run_id and t.step_slug = c.parent_step_slug and t.task_index = c.parent_task_index
    where c.status <> 'started' and t.child_run_id = c.run_id and t.waits_for is not distinct from 'run' and t.attempts_count > t.attempts_before
      and t.run_id = any (locked)
  );
  if exists (select from unnest(alarms) a where a.kind = 'ended' and a.step_slug is not null) then
    tasks := tasks || array(
      select row(t.run_id, t.step_slug, t.task_index, t.child_run_id, child.status)::pgflow.child_task
      from (select distinct a.run_id, a.step_slug from unnest(alarms) a where a.kind = 'ended' and a.step_slug is not null) a
      cross join lateral (
        select t.* from pgflow.step_tasks t where t.run_id = a.run_id and t.step_slug = a.step_slug and t.waits_for = 'run' offset 0
      ) t
      left join lateral (select c.status from pgflow.runs c where c.run_id = t.child_run_id) child on true
      where t.attempts_count > t.attempts_before and child.status is distinct from 'started'
        and t.run_id = any (locked) and not exists (
          select from unnest(tasks) k where (k.run_id, k.step_slug, k.task_index) = (t.run_id, t.step_slug, t.task_index)
        )
    );
  end if;
  return tasks;
end
$$;

-- The tasks of steps that have not begun, up to `quantity`, with their children from before a retry of the parent.
create function pgflow.children_to_begin(alarms pgflow.alarms[], locked uuid[], quantity int, as_of timestamptz)
returns pgflow.child_task[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  tasks pgflow.child_task[];
begin
  if not exists (select from unnest(alarms) a where a.kind = 'child') then
    return '{}';
  end if;
  tasks := array(
    select row(t.run_id, t.step_slug, t.task_index, t.child_run_id, (
             select c.status from pgflow.runs c where c.run_id = t.child_run_id
           ))::pgflow.child_task
    from (select distinct a.run_id, a.step_slug from unnest(alarms) a where a.kind = 'child') a
    cross join lateral (
      select t.* from pgflow.step_tasks t where t.run_id = a.run_id and t.step_slug = a.step_slug and t.waits_for = 'run' offset 0
    ) t
    where t.attempts_count = t.attempts_before and t.run_id = any (locked)
    limit greatest(children_to_begin.quantity, 1)
  );
  if cardinality(tasks) >= greatest(children_to_begin.quantity, 1) then
    insert into pgflow.alarms (due_at, kind, run_id, step_slug)
    select distinct children_to_begin.as_of, 'child', a.run_id, a.step_slug
    from unnest(alarms) a
    where a.kind = 'child' and a.run_id = any (locked);
  end if;
  return tasks;
end
$$;

-- Settles tasks whose children have ended or are gone, with their outputs or errors; answers how many. The caller has locked their runs. Outputs of
-- one call have to fit into one JSON value, which Postgres limits to 256 MB: the others are left to an alarm.
create function pgflow.settle_children(tasks pgflow.child_task[], locked uuid[], as_of timestamptz)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  results pgflow.task_result[];
  outputs jsonb;
  later uuid[];
begin
  if cardinality(tasks) = 0 then
    return 0;
  end if;
  select array_agg(row(
           s.run_id, s.step_slug, s.task_index, null, left(
             case s.child_status
               when 'completed' then null
               when 'failed' then format('child run %s failed: %s', s.child_run_id, s.error)
               when 'cancelled' then format('child run %s was cancelled%s', s.child_run_id, ': ' || s.error)
               else format('child run %s was deleted', s.child_run_id)
             end, 10000
           ), null, true, null
         )::pgflow.task_result order by s.n) filter (where s.fits),
         jsonb_agg(jsonb_build_object('output', s.output) order by s.n) filter (where s.fits),
         array_agg(s.child_run_id) filter (where not s.fits)
  into results, outputs, later
  from (
    select m.*, m.total <= 100000000 or m.n = 1 as fits
    from (
      select k.*, c.output, c.error, sum(coalesce(size.bytes, 0)) over (order by k.n) as total
      from unnest(tasks) with ordinality k (run_id, step_slug, task_index, child_run_id, child_status, n)
      left join pgflow.runs c on c.run_id = k.child_run_id
      cross join lateral (
        select pg_column_size(c.output)::bigint * case pg_column_compression(c.output) when 'pglz' then 100 when 'lz4' then 256 else 1 end
      ) size (bytes)
    ) m
  ) s;
  if later is not null then
    insert into pgflow.alarms (due_at, kind, run_id)
    select settle_children.as_of, 'ended', run_id from unnest(later) run_id;
  end if;
  return pgflow.settle_or_halve(results, outputs, locked, as_of);
end
$$;

-- Settles results of children. If that fails, they are halved until the one is found that cannot be settled; it fails with the reason.
create function pgflow.settle_or_halve(results pgflow.task_result[], outputs jsonb, locked uuid[], as_of timestamptz)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  settled pgflow.settled_task[];
  half int := cardinality(results) / 2;
  failed pgflow.task_result := results[1];
  problem text;
begin
  begin
    settled := array(select s from pgflow.record_results(locked, results, outputs, as_of) s);
    if cardinality(settled) > 0 then
      perform pgflow.advance(pgflow.changes_of(settled), as_of, outputs => outputs);
      perform pgflow.release_messages(settled);
    end if;
    return cardinality(settled);
  exception
    when others then
      if pgflow.is_transient(sqlstate) then
        raise;
      end if;
      problem := sqlerrm;
  end;
  if half = 0 and failed.error is not null then
    raise warning using
      message = format('step "%s" of run %s cannot be settled: %s', failed.step_slug, failed.run_id, problem),
      detail = 'it is tried again every minute';
    insert into pgflow.alarms (due_at, kind, run_id, step_slug)
    values (as_of + interval '1 minute', 'ended', failed.run_id, failed.step_slug);
    return 0;
  end if;
  if half = 0 then
    failed.error := left(format('the output of the child run cannot be stored: %s', problem), 10000);
    return pgflow.settle_or_halve(array[failed], '[{}]', locked, as_of);
  end if;
  return pgflow.settle_or_halve(results[:half], jsonb_path_query_array(outputs, '$[0 to $n]', jsonb_build_object('n', half - 1)), locked, as_of)
    + pgflow.settle_or_halve(results[half + 1:], jsonb_path_query_array(outputs, '$[$n to last]', jsonb_build_object('n', half)), locked, as_of);
end
$$;

-- Whether an error comes from what others do at the moment, or from the state of the server, so that the same may succeed later.
create function pgflow.is_transient(code text)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select left(code, 2) in ('08', '25', '40', '53', '55', '57', '58')
$$;

-- Looks for tasks that wait for a run that has ended or is gone, or was never started, without an alarm; answers of how many steps.
create function pgflow.recheck_children()
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  found_here int;
begin
  insert into pgflow.alarms (due_at, kind, run_id, step_slug)
  select distinct pgflow.now(), case when t.attempts_count = t.attempts_before then 'child' else 'ended' end, t.run_id, t.step_slug
  from pgflow.step_tasks t
  where t.waits_for = 'run'
    and not exists (select from pgflow.runs c where c.run_id = t.child_run_id and c.status = 'started' and t.attempts_count > t.attempts_before)
    and not exists (select from pgflow.alarms a where a.kind = 'child' and a.run_id = t.run_id and a.step_slug = t.step_slug);
  get diagnostics found_here = row_count;
  return found_here;
end
$$;

-- The children of a run, or of one of its steps: in the order of the steps, and of the items of maps.
--   select run_id, status from pgflow.list_children('…', 'lines');
create function pgflow.list_children(run_id uuid, step_slug text default null)
returns setof pgflow.runs
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select child.*
  from pgflow.step_tasks t
  join pgflow.steps s using (flow_slug, step_slug)
  join pgflow.runs child on child.run_id = t.child_run_id
  where t.run_id = list_children.run_id and (list_children.step_slug is null or t.step_slug = list_children.step_slug)
  order by s.step_index, t.task_index
$$;
comment on function pgflow.list_children is 'The runs that the steps of a run, or one of them, have started.';
