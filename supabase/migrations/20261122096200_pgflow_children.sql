-- Chapter 18: sub-flows. A step of a run starts runs of another flow, its children, and ends when they have ended.
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

-- Raises PT404 where a flow that a step of a definition runs does not exist, PT400 where it cannot be a sub-flow or its input_schema cannot fit what the step gives it. A flow may
-- run itself.
create function pgflow.assert_sub_flows_fit(definition jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  own pgflow.flows;
  step record;
  given record;
  problem text;
begin
  if not jsonb_path_exists(definition, '$.steps[*].child_flow ? (@ != null)') then
    return;
  end if;
  select f.* into own from pgflow.flows f where f.flow_slug = definition ->> 'flow_slug';
  for step in
    select d.step_slug, d.step_type, d.child_flow, d.map_path, child.flow_slug, child.singleton_when_busy,
           case when is_own then coalesce(nullif(definition -> 'input_schema', 'null'), own.input_schema) else child.input_schema end as wanted,
           source.slug as source, case source.slug
             when 'run' then coalesce(nullif(definition -> 'input_schema', 'null'), own.input_schema)
             else coalesce(
               (select nullif(dep -> 'output_schema', 'null') from jsonb_array_elements(definition -> 'steps') dep where dep ->> 'step_slug' = source.slug),
               (select s.output_schema from pgflow.steps s where s.flow_slug = definition ->> 'flow_slug' and s.step_slug = source.slug)
             )
           end as given
    from jsonb_populate_recordset(null::pgflow.step_definition, definition -> 'steps') d
    cross join lateral (select d.child_flow in (definition ->> 'alias', definition ->> 'flow_slug')) own_flow (is_own)
    cross join lateral (select coalesce(d.map_source, d.deps_slugs[1], 'run')) source (slug)
    left join pgflow.flows child on child.flow_slug = case when is_own then definition ->> 'flow_slug' else pgflow.newest_version(d.child_flow) end
    where d.child_flow is not null
  loop
    if step.flow_slug is null then
      raise exception using
        errcode = 'PT404',
        message = format('step "%s" of flow "%s" runs flow "%s", which does not exist', step.step_slug, definition ->> 'flow_slug', step.child_flow),
        hint = 'Register the flows that sub-flows run first.';
    elsif step.singleton_when_busy is not null or step.flow_slug = definition ->> 'flow_slug' and definition ->> 'singleton_when_busy' is not null then
      problem := format('flow "%s" has one run at a time (singleton), and cannot be a sub-flow', step.child_flow);
    elsif step.given is not null and step.wanted is not null then
      given := pgflow.schema_at(step.given, string_to_array(step.map_path, '.'), step.step_type = 'map', step.source);
      problem := coalesce(given.problem, pgflow.schema_conflict(given.schema, step.wanted, step.given, step.wanted, given.name));
      problem := format('flow "%s" cannot have this input: %s', step.child_flow, problem) where problem is not null;
    end if;
    if problem is not null then
      perform pgflow.raise_invalid_definition(definition ->> 'flow_slug', format('step "%s": %s', step.step_slug, problem));
    end if;
  end loop;
end
$$;

-- A schema in whose place `$ref` names another one of the same document; {} where that is not there, or not an object.
create function pgflow.schema_of_ref(schema jsonb, root jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(schema) = 'object' and schema ? '$ref' then
    schema := case
      when schema ->> '$ref' = '#' then root
      when schema ->> '$ref' ~ '^#/(definitions|[$]defs)/[^/]+$' then root #> string_to_array(substr(schema ->> '$ref', 3), '/')
    end;
  end if;
  return case when jsonb_typeof(schema) = 'object' and not schema ? '$ref' then schema else '{}' end;
end
$$;

-- The types of the values that a schema allows; null where it does not say.
create function pgflow.schema_types(schema jsonb, root jsonb)
returns text[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  types text[];
begin
  if schema ? 'type' then
    return array(select jsonb_array_elements_text(case jsonb_typeof(schema -> 'type') when 'array' then schema -> 'type' else jsonb_build_array(schema -> 'type') end));
  elsif schema ? 'const' then
    return array[jsonb_typeof(schema -> 'const')];
  elsif jsonb_typeof(schema -> 'enum') = 'array' then
    return array(select distinct jsonb_typeof(e) from jsonb_array_elements(schema -> 'enum') e);
  elsif jsonb_typeof(coalesce(schema -> 'anyOf', schema -> 'oneOf')) = 'array' then
    select case when bool_and(part.types is not null) then array_agg(distinct t.type) end into types
    from jsonb_array_elements(coalesce(schema -> 'anyOf', schema -> 'oneOf')) s (schema)
    cross join lateral (
      select case when not s.schema ? '$ref' then pgflow.schema_types(s.schema, root) end
    ) part (types)
    left join lateral unnest(part.types) t (type) on true;
  end if;
  return types;
end
$$;

-- The part of a schema that describes the value at a path, or with `is_map` an item of it, and its name; or a problem, where there cannot be
-- such a value. The schema is {} where nothing is known.
create function pgflow.schema_at(root jsonb, path text[], is_map boolean, source text, out schema jsonb, out name text, out problem text)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  key text;
  types text[];
begin
  schema := pgflow.schema_of_ref(root, root);
  name := source;
  foreach key in array coalesce(path, '{}') loop
    types := pgflow.schema_types(schema, root);
    if not 'object' = any (types) and not 'array' = any (types) then
      problem := format('%s is of type %s, and has no %s', name, array_to_string(types, ' or '), key);
      return;
    elsif not coalesce(schema -> 'properties' ? key, false) and schema -> 'additionalProperties' = 'false' then
      problem := format('%s has no %s', name, key);
      return;
    end if;
    schema := pgflow.schema_of_ref(schema -> 'properties' -> key, root);
    name := concat(name, '.', key);
  end loop;
  if is_map then
    types := pgflow.schema_types(schema, root);
    if not 'array' = any (types) then
      problem := format('%s is of type %s, not an array', name, array_to_string(types, ' or '));
      return;
    end if;
    schema := pgflow.schema_of_ref(schema -> 'items', root);
    name := format('each of %s', name);
  end if;
end
$$;

-- Why no value of one schema can be one of another: types, or keys that are required; null where one can.
create function pgflow.schema_conflict(given jsonb, wanted jsonb, given_root jsonb, wanted_root jsonb, name text, depth int default 0)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  given_types text[];
  wanted_types text[];
begin
  given := pgflow.schema_of_ref(given, given_root);
  wanted := pgflow.schema_of_ref(wanted, wanted_root);
  given_types := pgflow.schema_types(given, given_root);
  wanted_types := pgflow.schema_types(wanted, wanted_root);
  -- integers are numbers
  if not array_replace(given_types, 'integer', 'number') && array_replace(wanted_types, 'integer', 'number') then
    return format('%s is of type %s, not %s', name, array_to_string(given_types, ' or '), array_to_string(wanted_types, ' or '));
  end if;
  if depth > 10 or given ?| '{anyOf,oneOf,allOf}' or wanted ?| '{anyOf,oneOf,allOf}' then
    return null;
  end if;
  if given_types = '{object}' and wanted_types = '{object}' then
    return coalesce(
      (
        select format('%s has no %s', name, key)
        from jsonb_array_elements_text(case when jsonb_typeof(wanted -> 'required') = 'array' then wanted -> 'required' end) key
        where given -> 'additionalProperties' = 'false' and not given ? 'patternProperties' and not coalesce(given -> 'properties' ? key, false)
        order by key
        limit 1
      ),
      (
        select min(conflict)
        from jsonb_each(case when jsonb_typeof(wanted -> 'properties') = 'object' then wanted -> 'properties' end) p
        cross join lateral pgflow.schema_conflict(
          given -> 'properties' -> p.key, p.value, given_root, wanted_root, concat(name, '.', p.key), depth + 1
        ) conflict
        where given -> 'properties' ? p.key and (wanted -> 'required' ? p.key or given -> 'required' ? p.key)
      )
    );
  elsif given_types = '{array}' and wanted_types = '{array}' and given ? 'items' and wanted ? 'items' then
    return pgflow.schema_conflict(given -> 'items', wanted -> 'items', given_root, wanted_root, format('each of %s', name), depth + 1);
  end if;
  return null;
end
$$;

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
  to_retry uuid[];
  held uuid[] := '{}';
  batch record;
begin
  if cardinality(tasks) = 0 then
    return 0;
  end if;
  to_retry := array(select k.child_run_id from unnest(tasks) k where k.child_status in ('failed', 'cancelled'));
  if cardinality(to_retry) > 0 then
    held := array(
      select c.run_id from pgflow.runs c where c.run_id = any (to_retry) order by c.run_id for no key update skip locked
    );
  end if;
  busy := pgflow.busy_flows(tasks);
  ready := array(
    select k from unnest(tasks) k
    where case
      when k.child_status = 'started' then true
      when k.child_status is not null then k.child_run_id = any (held)
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

-- Cancels children whose tasks are closed; answers how many. A task that is open again, since its run was retried, keeps its child.
create function pgflow.cancel_children(alarms pgflow.alarms[], as_of timestamptz)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  unneeded uuid[] := array(
    select c.run_id
    from (select distinct a.run_id from unnest(alarms) a where a.kind = 'cancel') a
    join pgflow.runs c using (run_id)
    where c.status = 'started' and not exists (
      select from pgflow.step_tasks t
      where (t.run_id, t.step_slug, t.task_index) = (c.parent_run_id, c.parent_step_slug, c.parent_task_index)
        and t.child_run_id = c.run_id and t.status = 'waiting'
    )
  );
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
      ), format('its parent run %s was deleted', c.parent_run_id))
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
