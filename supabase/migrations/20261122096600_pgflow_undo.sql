-- Chapter 22: what the completed steps of a run have done is undone, by a run of its own.
--
-- A flow names its undo flow (undo_flow), a flow like any other, by its exact slug. Its steps have the slugs of those that they undo. When
-- a run has failed, or was cancelled with `undo`, an alarm says so; the next tick starts a run of the undo flow, whose input is
--
--   {"run": <input>, "error": "…", "completed": {"hotel": true}, "outputs": {"hotel": <output>}}
--
-- over the steps that were completed. Of a map these are its completed items, also where the map has not completed:
-- [{"index": 0, "item": …, "output": …}]. Where nothing was completed that has an undo, there is no run.
--
-- A run is either retried or undone: both lock it, and a retry forgets that it was to be undone. `runs.undo` says that its undo
-- has begun, also when the undo run was deleted; begin_undos changes it, so that no transaction with an older snapshot retries the run.

-- Notes that runs are to be undone, those of flows that have an undo flow.
create function pgflow.ask_for_undos(run_ids uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  asked uuid[];
begin
  with alarm as (
    insert into pgflow.alarms (due_at, kind, run_id)
    select pgflow.now(), 'undo', r.run_id
    from unnest(ask_for_undos.run_ids) k (run_id)
    join pgflow.runs r using (run_id)
    join pgflow.flows f using (flow_slug)
    where f.undo_flow is not null and r.undoes is null
    returning run_id
  )
  select array_agg(a.run_id) into asked from alarm a;
  if asked is not null then
    perform pgflow.notify_workers(asked); -- so that their clocks know of it
  end if;
end
$$;

-- Starts the runs that undo others, up to `quantity`; answers how many. It waits for nobody: a run that another transaction has locked is
-- looked at again 20 ms later. An alarm comes in vain where the run was retried, or has nothing to undo.
create function pgflow.begin_undos(quantity int)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
  asked uuid[];
  locked uuid[];
  start record;
  begun int := 0;
begin
  with
    due as (
      select a.due_at, a.alarm_id from pgflow.alarms a
      where a.due_at <= as_of and a.kind = 'undo'
      order by a.due_at, a.alarm_id
      limit greatest(begin_undos.quantity, 0)
      for update skip locked
    ),
    taken as (
      delete from pgflow.alarms a using due d where (a.due_at, a.alarm_id) = (d.due_at, d.alarm_id) returning a.run_id
    )
  select array_agg(distinct t.run_id) into asked from taken t;
  if asked is null then
    return 0;
  end if;
  locked := array(
    select r.run_id from pgflow.runs r where r.run_id = any (asked) order by r.run_id for no key update skip locked
  );
  insert into pgflow.alarms (due_at, kind, run_id)
  select as_of + interval '20 milliseconds', 'undo', r.run_id
  from unnest(asked) k (run_id)
  join pgflow.runs r using (run_id)
  where r.run_id <> all (locked);
  -- A statement of its own, which sees what was committed before it had the locks.
  for start in
    select u.flow_slug, array_agg(u.input order by u.n) as inputs,
           array_agg(row(null, null, null, 0, u.owner_id, u.group_id, u.priority, u.run_id)::pgflow.run_parent order by u.n) as parents
    from (
      select f.undo_flow as flow_slug, r.owner_id, r.group_id, r.priority, r.run_id, pgflow.undo_input(r, f.undo_flow) as input, k.n
      from unnest(locked) with ordinality k (run_id, n)
      join pgflow.runs r using (run_id)
      join pgflow.flows f using (flow_slug)
      where r.status = 'failed' and r.undo is null or r.undo = 'asked'
    ) u
    where u.input is not null
    group by u.flow_slug
    order by u.flow_slug
  loop
    perform pgflow.start_runs(
      start.flow_slug, null, start.inputs, null, null, null, null, 0, is_decided => true, parents => start.parents
    );
    update pgflow.runs r set undo = 'begun' where r.run_id in (select p.undoes from unnest(start.parents) p);
    begun := begun + cardinality(start.inputs);
  end loop;
  return begun;
end
$$;

-- The input of the run that undoes a run; null where that has completed nothing that the undo flow has a step for.
create function pgflow.undo_input(run pgflow.runs, undo_flow text)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_build_object(
      'run', run.input, 'error', run.error,
      'completed', jsonb_object_agg(done.step_slug, true), 'outputs', jsonb_object_agg(done.step_slug, done.output)
    )
    from (
      select ss.step_slug, case s.step_type
        when 'map' then (
          select jsonb_agg(jsonb_build_object('index', t.task_index, 'item', t.input, 'output', t.output) order by t.task_index)
          from pgflow.step_tasks t
          where t.run_id = ss.run_id and t.step_slug = ss.step_slug and t.status = 'completed'
        )
        else ss.output
      end as output
      from pgflow.steps undo
      join pgflow.step_states ss on ss.run_id = run.run_id and ss.step_slug = undo.step_slug
      join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
      where undo.flow_slug = undo_input.undo_flow
    ) done
    where done.output is not null
    having count(*) > 0
  );
end
$$;

-- The run that undoes a run; null where none does.
create function pgflow.undo_run_of(run_id uuid)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select r.run_id from pgflow.runs r where r.undoes = undo_run_of.run_id);
end
$$;

-- Whether a run is being undone, or about to be.
create function pgflow.is_being_undone(run pgflow.runs)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return run.status <> 'completed' and (
    exists (select from pgflow.runs u where u.undoes = run.run_id and u.status = 'started')
    or run.undo is distinct from 'begun' and exists (
      select from pgflow.alarms a
      where a.due_at <= pgflow.now() + interval '1 second' and a.kind = 'undo' and a.run_id = run.run_id
    )
  );
end
$$;

-- Refuses the retry of a run whose undo has begun.
create function pgflow.raise_undone(run_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT409',
    message = format(
      'run %s cannot be retried: %s', raise_undone.run_id,
      coalesce(format('run %s undoes it', pgflow.undo_run_of(raise_undone.run_id)), 'it was undone')
    ),
    hint = 'What it had completed is undone. Start the flow again; an undo run that has failed can itself be retried.';
end
$$;
