-- Chapter 20: children are started, retried and cancelled, and retried with their parents.

-- Begins tasks: starts children that there are not, retries those that have failed or were cancelled, and awaits those that go on; answers how
-- many. What cannot start, or cannot be retried, fails. The caller has locked the parents; since then, some of the tasks may have been closed.
create function pgflow.begin_children(tasks pgflow.child_task[], as_of timestamptz)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  ready pgflow.child_task[];
  begun pgflow.child_task[];
  failed pgflow.task_result[] := '{}';
  busy text[];
  children uuid[] := array(select k.child_run_id from unnest(tasks) k where k.child_status is not null);
  to_retry uuid[];
  batch record;
begin
  if cardinality(tasks) = 0 then
    return 0;
  end if;
  -- Children that there are, as they are when they are locked: one that goes on may be about to be cancelled.
  if cardinality(children) > 0 then
    with child as (
      select c.run_id, c.status from pgflow.runs c where c.run_id = any (children) order by c.run_id for no key update skip locked
    )
    select array_agg(row(
             k.run_id, k.step_slug, k.task_index, k.child_run_id, case when k.child_status is not null then coalesce(c.status, 'held') end
           )::pgflow.child_task)
    into tasks
    from unnest(tasks) k
    left join child c on c.run_id = k.child_run_id;
  end if;
  busy := pgflow.busy_flows(tasks);
  ready := array(
    select k from unnest(tasks) k
    where case
      when k.child_status is not null then k.child_status <> 'held' -- one that has completed since has an alarm
      when cardinality(busy) = 0 then true
      else not exists (
        select from pgflow.runs r join pgflow.steps s using (flow_slug)
        where r.run_id = k.run_id and s.step_slug = k.step_slug and s.child_flow = any (busy)
      )
    end
  );
  with task as (
    update pgflow.step_tasks t
    set attempts_count = t.attempts_count + 1, started_at = begin_children.as_of
    from unnest(ready) k
    where (t.run_id, t.step_slug, t.task_index) = (k.run_id, k.step_slug, k.task_index)
      and t.waits_for is not distinct from 'run' and t.attempts_count = t.attempts_before
    returning t.run_id, t.step_slug, t.task_index, t.child_run_id, k.child_status
  )
  select coalesce(array_agg(row(t.*)::pgflow.child_task), '{}') into begun from task t;
  if cardinality(begun) < cardinality(tasks) then
    insert into pgflow.alarms (due_at, kind, run_id, step_slug)
    select distinct begin_children.as_of + interval '20 milliseconds', 'child', t.run_id, t.step_slug
    from unnest(tasks) k
    join pgflow.step_tasks t using (run_id, step_slug, task_index)
    where t.waits_for is not distinct from 'run' and t.attempts_count = t.attempts_before;
  end if;

  for batch in
    select m.child_flow, array_agg(m.child_run_id order by m.n) as run_ids, array_agg(m.input order by m.n) as inputs,
           array_agg(row(
             m.run_id, m.step_slug, m.task_index, m.depth + 1, m.owner_id, m.group_id, m.priority, null
           )::pgflow.run_parent order by m.n) as parents
    from (
      -- In parts of some 20 MB, since an array has a limit.
      select t.*, sum(pg_column_size(t.input)::bigint * case pg_column_compression(t.input) when 'pglz' then 100 when 'lz4' then 256 else 1 end)
               over (partition by t.child_flow order by t.n) / 20000000 as part
      from (
        select b.n, t.run_id, t.step_slug, t.task_index, t.child_run_id, coalesce(t.input, i.items, 'null') as input,
               s.child_flow, r.depth, r.owner_id, r.group_id, r.priority
        from unnest(begun) with ordinality b (run_id, step_slug, task_index, child_run_id, child_status, n)
        join pgflow.step_tasks t using (run_id, step_slug, task_index)
        join pgflow.runs r using (run_id)
        join pgflow.steps s on s.flow_slug = r.flow_slug and s.step_slug = b.step_slug
        left join lateral (
          select i.items from pgflow.step_inputs i where t.input is null and i.run_id = t.run_id and i.step_slug = t.step_slug offset 0
        ) i on true
        where b.child_status is null
      ) t
    ) m
    group by m.child_flow, floor(m.part)
  loop
    failed := failed || pgflow.start_children(batch.child_flow, batch.run_ids, batch.inputs, batch.parents);
  end loop;
  to_retry := array(select b.child_run_id from unnest(begun) b where b.child_status in ('failed', 'cancelled') order by 1);
  if cardinality(to_retry) > 0 then
    failed := failed || pgflow.retry_children(to_retry);
  end if;
  if cardinality(failed) > 0 then
    perform pgflow.settle_or_halve(
      failed, (select jsonb_agg('{}'::jsonb) from unnest(failed)), array(select distinct f.run_id from unnest(failed) f), as_of
    );
  end if;
  return cardinality(begun);
end
$$;

-- The flows of children that are to be started, which somebody is defining at the moment. The others stay as they are until this transaction ends.
create function pgflow.busy_flows(tasks pgflow.child_task[])
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select f.name
    from (
      select distinct s.child_flow
      from unnest(tasks) k
      join pgflow.runs r using (run_id)
      join pgflow.steps s on s.flow_slug = r.flow_slug and s.step_slug = k.step_slug
      where k.child_status is null
    ) f (name)
    where not pg_try_advisory_xact_lock_shared(hashtextextended('pgflow.shape:' || pgflow.newest_version(f.name), 0))
  );
end
$$;

-- Starts children of a flow, its newest version; answers with the failures of the tasks whose children cannot start. If together they cannot, they are halved
-- until those are found that cannot.
create function pgflow.start_children(child_flow text, run_ids uuid[], inputs jsonb[], parents pgflow.run_parent[])
returns pgflow.task_result[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  half int := cardinality(run_ids) / 2;
  problem text;
begin
  select case
      when f.flow_slug is null then format('flow "%s" does not exist', start_children.child_flow)
      when f.singleton_when_busy is not null then format('flow "%s" has one run at a time (singleton)', start_children.child_flow)
    end
  into problem
  from (select pgflow.newest_version(start_children.child_flow)) n (slug)
  left join pgflow.flows f on f.flow_slug = n.slug;
  if problem is null and exists (select from unnest(parents) p where p.depth > 8) then
    if half = 0 then
      problem := 'it would be deeper than 8 levels below the root run';
    end if;
  elsif problem is null then
    begin
      perform pgflow.start_runs(
        start_children.child_flow, start_children.run_ids, start_children.inputs, null, null, null, null, 0,
        parents => start_children.parents
      );
      return '{}';
    exception
      when others then
        if pgflow.is_transient(sqlstate) then
          raise;
        end if;
        problem := case half when 0 then sqlerrm end;
    end;
  end if;
  if problem is null then
    return pgflow.start_children(child_flow, run_ids[:half], inputs[:half], parents[:half])
      || pgflow.start_children(child_flow, run_ids[half + 1:], inputs[half + 1:], parents[half + 1:]);
  end if;
  return array(
    select row(p.run_id, p.step_slug, p.task_index, null, left(
             format('step "%s" cannot start a run of flow "%s": %s', p.step_slug, start_children.child_flow, problem), 10000
           ), null, true, null)::pgflow.task_result
    from unnest(parents) p
  );
end
$$;

-- Retries children, which the caller has locked; answers with the failures of the tasks whose children cannot be retried.
create function pgflow.retry_children(run_ids uuid[])
returns pgflow.task_result[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  half int := cardinality(run_ids) / 2;
  last_alarm bigint := nextval(pg_get_serial_sequence('pgflow.alarms', 'alarm_id'));
  problem text;
begin
  -- Its key would come before the locks that are held.
  if exists (
    select from unnest(run_ids) k (run_id)
    join pgflow.runs r using (run_id)
    join pgflow.flows f using (flow_slug)
    where f.singleton_when_busy is not null
  ) then
    problem := 'its flow has one run at a time (singleton)';
  else
    begin
      perform pgflow.retry_run(run_id) from unnest(run_ids) run_id;
      -- Their parents know: if one of them has failed again before its alarm is taken, it would be retried without end.
      delete from pgflow.alarms a
      where a.due_at <= pgflow.now() and a.alarm_id > last_alarm and a.kind = 'retried' and a.run_id = any (run_ids);
      return '{}';
    exception
      when others then
        if pgflow.is_transient(sqlstate) then
          raise;
        end if;
        problem := sqlerrm;
    end;
  end if;
  if half > 0 then
    return pgflow.retry_children(run_ids[:half]) || pgflow.retry_children(run_ids[half + 1:]);
  end if;
  return array(
    select row(c.parent_run_id, c.parent_step_slug, c.parent_task_index, null, left(
             format('child run %s cannot be retried: %s', c.run_id, problem), 10000
           ), null, true, null)::pgflow.task_result
    from unnest(run_ids) k (run_id)
    join pgflow.runs c using (run_id)
  );
end
$$;

-- Those of the children that go on, and for which no task of a parent waits.
create function pgflow.unneeded_children(run_ids uuid[])
returns uuid[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select c.run_id
    from unnest(unneeded_children.run_ids) k (run_id)
    join pgflow.runs c using (run_id)
    where c.status = 'started' and not exists (
      select from pgflow.step_tasks t
      where (t.run_id, t.step_slug, t.task_index) = (c.parent_run_id, c.parent_step_slug, c.parent_task_index)
        and t.child_run_id = c.run_id and t.status = 'waiting'
    )
  );
end
$$;

-- Cancels children whose tasks are closed; answers how many. A task that is open again, since its run was retried, keeps its child.
create function pgflow.cancel_children(alarms pgflow.alarms[], as_of timestamptz)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  unneeded uuid[] := pgflow.unneeded_children(array(select distinct a.run_id from unnest(alarms) a where a.kind = 'cancel'));
  locked uuid[];
begin
  if cardinality(unneeded) = 0 then
    return 0;
  end if;
  locked := pgflow.lock_runs(unneeded, wait => false);
  if cardinality(locked) < cardinality(unneeded) then
    insert into pgflow.alarms (due_at, kind, run_id)
    select cancel_children.as_of + interval '20 milliseconds', 'cancel', c.run_id
    from unnest(unneeded) c (run_id) where c.run_id <> all (locked);
  end if;
  locked := pgflow.unneeded_children(locked); -- a parent that was retried may have begun to wait for one before it was locked
  if cardinality(locked) = 0 then
    return 0;
  end if;
  update pgflow.step_states ss set status = 'cancelled'
  where ss.run_id = any (locked) and ss.status in ('created', 'started');
  perform pgflow.close_tasks(locked);
  update pgflow.runs c
  set status = 'cancelled', cancelled_at = cancel_children.as_of, waits_for = null, error = coalesce((
        select case parent.status
            when 'started' then format('step "%s" of its parent run %s is over', c.parent_step_slug, parent.run_id)
            when 'cancelled' then format('its parent run %s was cancelled', parent.run_id)
            else format('its parent run %s has %s', parent.run_id, parent.status)
          end
        from pgflow.runs parent where parent.run_id = c.parent_run_id
      ), format('its parent run %s was deleted', c.parent_run_id)),
      -- What is undone is undone with all that is open below it.
      undo = (
        select 'asked' from pgflow.runs parent join pgflow.flows f using (flow_slug)
        where parent.run_id = c.parent_run_id and (parent.undo is not null or parent.status = 'failed' and f.undo_flow is not null)
      )
  where c.run_id = any (locked);
  return cardinality(locked);
end
$$;

-- Retries runs that have failed, of whose children one was retried; answers how many. One that cannot be retried stays as it is.
create function pgflow.retry_parents(alarms pgflow.alarms[], as_of timestamptz)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  parents uuid[] := array(
    select distinct parent.run_id
    from unnest(alarms) a
    join pgflow.runs c using (run_id)
    join pgflow.runs parent on parent.run_id = c.parent_run_id
    join pgflow.step_states ss on ss.run_id = parent.run_id and ss.step_slug = c.parent_step_slug
    where a.kind = 'retried' and c.status in ('started', 'completed') and parent.status = 'failed' and ss.status in ('failed', 'cancelled')
  );
  parent record;
  is_free boolean;
  done int := 0;
begin
  for parent in
    select r.run_id, r.input, f.alias, f.singleton_when_busy is not null as has_key
    from unnest(parents) k (run_id)
    join pgflow.runs r using (run_id)
    join pgflow.flows f using (flow_slug)
    order by r.run_id
  loop
    is_free := not parent.has_key or pgflow.try_to_lock_keys(parent.alias, array[parent.input]);
    if is_free then
      perform from pgflow.runs r where r.run_id = parent.run_id for no key update skip locked;
      is_free := found;
    end if;
    if not is_free then
      insert into pgflow.alarms (due_at, kind, run_id)
      select distinct retry_parents.as_of + interval '20 milliseconds', 'retried', c.run_id
      from unnest(alarms) a
      join pgflow.runs c using (run_id)
      where a.kind = 'retried' and c.parent_run_id = parent.run_id;
      continue;
    end if;
    begin
      perform pgflow.retry_run(parent.run_id);
      done := done + 1;
    exception
      when others then
        if pgflow.is_transient(sqlstate) then
          raise;
        end if;
    end;
  end loop;
  return done;
end
$$;
