-- Chapter 10: runs begin.

create type pgflow.run_parent as (
  run_id uuid,
  step_slug text,
  task_index int,
  depth int,
  owner_id uuid,
  group_id uuid,
  priority text,
  undoes uuid
);
comment on type pgflow.run_parent is 'The task for which a run is started as a child, or the run that it undoes, and what it has of that.';

-- Starts runs, or finds those that the same keys have started, of another version too: what start_flow and start_flows
-- do. Each array has an element for each run, or is null; a run_id that is null is given one. A priority that is null is the
-- flow's. What a client may not see or cancel is refused (is_client). Singletons are decided first, and then started by this, too
-- (is_decided). Children have parents, who say whose they are. So do runs that undo others, which are of exactly this version.
create function pgflow.start_runs(
  flow_slug text,
  run_ids uuid[],
  inputs jsonb[],
  idempotency_keys text[],
  owner_id uuid,
  group_id uuid,
  metadata jsonb,
  delay int,
  priority text default null,
  is_client boolean default false,
  is_decided boolean default false,
  parents pgflow.run_parent[] default null
)
returns setof pgflow.runs
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
#variable_conflict use_column
declare
  started_by uuid := coalesce(start_runs.owner_id, pgflow.current_user_id());
  as_of timestamptz := pgflow.now();
  flow pgflow.flows := pgflow.lock_flow(start_runs.flow_slug, is_exact => (start_runs.parents)[1].undoes is not null);
  steps int;
  are_plain boolean;
  roots text[];
  root_delays int[];
  ids uuid[] := pgflow.new_run_ids(cardinality(start_runs.inputs), as_of);
  keyed uuid[];
  started uuid[];
  begun pgflow.step_key[];
  ready pgflow.step_key[];
begin
  select count(*), bool_and(s.is_plain and s.opt_deadline is null) filter (where s.deps_count = 0),
         array_agg(s.step_slug order by s.step_index) filter (where s.deps_count = 0),
         array_agg(coalesce(s.opt_start_delay, 0) order by s.step_index) filter (where s.deps_count = 0)
  into steps, are_plain, roots, root_delays
  from pgflow.steps s
  where s.flow_slug = flow.flow_slug;
  if not start_runs.is_decided then
    perform pgflow.assert_can_start(
      flow, steps, start_runs.inputs, start_runs.idempotency_keys, start_runs.metadata, start_runs.delay, start_runs.priority
    );
  end if;
  if num_nonnulls(variadic start_runs.run_ids) > 0 then
    ids := array(select coalesce(r.run_id, ids[r.n]) from unnest(start_runs.run_ids) with ordinality r (run_id, n) order by r.n);
  end if;
  if start_runs.is_decided then
    keyed := ids;
  elsif num_nonnulls(variadic start_runs.idempotency_keys) > 0 then
    with key as (
      insert into pgflow.run_keys (run_id, alias, key, owner_id)
      select r.run_id, flow.alias, r.key, started_by
      from unnest(ids, start_runs.idempotency_keys) with ordinality r (run_id, key, n)
      where r.key is not null
      order by r.key, r.n -- one order for all, since a start waits for another with the same key
      on conflict do nothing
      returning run_id
    )
    select array_agg(run_id) into keyed from key;
  end if;
  if flow.singleton_when_busy is not null and not start_runs.is_decided then
    return query select * from pgflow.start_singletons(
      flow, ids, start_runs.inputs, start_runs.idempotency_keys, keyed, started_by, start_runs.group_id, start_runs.metadata,
      start_runs.delay, start_runs.priority, start_runs.is_client
    );
    return;
  end if;

  -- Plain root steps start with their run, and have their tasks where all of them are plain, as mostly. One statement, so that
  -- the trigger of runs finds its steps, and writes one statement of events.
  with
    run as (
      insert into pgflow.runs (
        run_id, flow_slug, input, owner_id, group_id, idempotency_key, metadata, started_at, priority,
        parent_run_id, parent_step_slug, parent_task_index, depth, undoes
      )
      select r.run_id, flow.flow_slug, r.input, case when r.depth is null then started_by else r.owner_id end,
             coalesce(r.group_id, start_runs.group_id), r.key, start_runs.metadata, as_of,
             coalesce(r.priority, start_runs.priority, flow.priority),
             r.parent_run_id, r.parent_step_slug, r.parent_task_index, coalesce(r.depth, 0), r.undoes
      from unnest(ids, start_runs.inputs, start_runs.idempotency_keys, start_runs.parents) with ordinality
        r (run_id, input, key, parent_run_id, parent_step_slug, parent_task_index, depth, owner_id, group_id, priority, undoes, n)
      where r.key is null or r.run_id = any (keyed)
      order by r.n
      on conflict do nothing
      returning run_id, priority
    ),
    state as (
      insert into pgflow.step_states (
        run_id, step_slug, flow_slug, status, remaining_deps, remaining_tasks, initial_tasks, created_at, started_at
      )
      select r.run_id, s.step_slug, s.flow_slug, case when root.starts then 'started' else 'created' end, s.deps_count,
             case when root.starts then 1 end, case when root.starts then 1 end, as_of, case when root.starts then as_of end
      from run r
      cross join pgflow.steps s
      cross join lateral (select s.deps_count = 0 and s.is_plain) as root (starts)
      where s.flow_slug = flow.flow_slug
      returning run_id, step_slug, status, remaining_deps
    ),
    batch as (
      select root.delay, r.priority, array_agg(r.run_id) as run_ids, array_agg(root.step_slug) as step_slugs,
             array_agg(jsonb_build_object(
               'flow_slug', flow.flow_slug, 'run_id', r.run_id, 'step_slug', root.step_slug, 'task_index', 0
             )) as messages
      from run r
      cross join unnest(roots, root_delays) root (step_slug, delay)
      where are_plain
      group by root.delay, r.priority
    ),
    task as (
      insert into pgflow.step_tasks (run_id, step_slug, task_index, flow_slug, message_id, queued_at)
      select t.run_id, t.step_slug, 0, flow.flow_slug, t.msg_id, as_of
      from batch b
      cross join lateral rows from (
        unnest(b.run_ids), unnest(b.step_slugs),
        pgflow.send_messages(flow.queue_name, b.messages, b.delay + start_runs.delay, b.priority)
      ) as t (run_id, step_slug, msg_id)
    )
  select (select array_agg(run_id) from run),
         (select array_agg(row(run_id, step_slug)::pgflow.step_key) from state where status = 'started' and not are_plain),
         (select array_agg(row(run_id, step_slug)::pgflow.step_key) from state where status = 'created' and remaining_deps = 0)
  into started, begun, ready;
  if not are_plain then
    perform pgflow.advance(pgflow.decide(ready, as_of, start_runs.delay), as_of, begun, start_runs.delay);
  elsif started is not null then
    perform pgflow.notify_workers(started);
  end if;
  if flow.opt_deadline is not null then
    perform pgflow.set_deadlines(started, as_of + make_interval(secs => start_runs.delay));
  end if;

  if cardinality(started) = cardinality(ids) then
    return query
      select run.* from unnest(ids) with ordinality r (run_id, n) join pgflow.runs run using (run_id) order by r.n;
    return;
  end if;
  return query
    select run.*
    from unnest(ids, start_runs.inputs, start_runs.idempotency_keys) with ordinality r (run_id, input, key, n)
    cross join lateral (
      select own.* from pgflow.runs own where own.run_id = r.run_id and own.run_id = any (started)
      union all
      select existing.*
      from pgflow.existing_run(
        flow, r.run_id, r.input, r.key, started_by, start_runs.group_id, start_runs.metadata, start_runs.delay,
        start_runs.priority, start_runs.is_client
      ) existing
      where r.run_id <> all (coalesce(started, '{}'))
    ) run
    order by r.n;
end
$$;

-- Starts a run: the run, a state for each step, and the tasks of the root steps, all in the caller's transaction.
--   select * from pgflow.start_flow('analyze_document', '{"path": "README.md"}');
-- An alias starts its newest version. The same idempotency key (or run_id) of the same owner and flow, whatever its
-- version, gives the run that exists; with another input it is an error. The owner is the one named, else the signed-in user;
-- `group_id` is that of a team, for pgflow.can_access_run to look at. `delay` is in seconds, a year at most. `priority` is high,
-- normal or low, else the flow's. Of a flow with singleton_when_busy the answer may be the run that goes on, or one that waits.
create function pgflow.start_flow(
  flow_slug text,
  input jsonb,
  run_id uuid default null,
  idempotency_key text default null,
  owner_id uuid default null,
  metadata jsonb default null,
  delay int default 0,
  group_id uuid default null,
  priority text default null
)
returns setof pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select * from pgflow.start_runs(
    start_flow.flow_slug, array[start_flow.run_id], array[start_flow.input], array[start_flow.idempotency_key],
    start_flow.owner_id, start_flow.group_id, start_flow.metadata, start_flow.delay, start_flow.priority
  );
end
$$;
comment on function pgflow.start_flow is
  'Starts a run of a flow, or returns the one that the idempotency key (or run_id) has started already.';

-- Starts a run for each of many inputs, a JSON array, in one go; answers in their order.
--   select * from pgflow.start_flows('resize_image', '[{"path": "a.png"}, {"path": "b.png"}]');
-- idempotency_keys has a key for each input, or is null.
create function pgflow.start_flows(
  flow_slug text,
  inputs jsonb,
  idempotency_keys text[] default null,
  owner_id uuid default null,
  metadata jsonb default null,
  delay int default 0,
  group_id uuid default null,
  priority text default null
)
returns setof pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select * from pgflow.start_runs(
    start_flows.flow_slug, null, pgflow.inputs_of(start_flows.flow_slug, start_flows.inputs, start_flows.idempotency_keys),
    start_flows.idempotency_keys, start_flows.owner_id, start_flows.group_id, start_flows.metadata, start_flows.delay,
    start_flows.priority
  );
end
$$;
comment on function pgflow.start_flows is 'Starts a run of a flow for each of many inputs.';

-- The inputs of many runs, from a JSON array; PT400 where it is none, or has not as many elements as there are keys.
create function pgflow.inputs_of(flow_slug text, inputs jsonb, idempotency_keys text[])
returns jsonb[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(inputs) is distinct from 'array' or cardinality(idempotency_keys) <> jsonb_array_length(inputs) then
    raise exception using
      errcode = 'PT400',
      message = format('the inputs for flow "%s" cannot be started', flow_slug),
      detail = format('inputs: %s, keys: %s', coalesce(jsonb_typeof(inputs), 'null'), cardinality(idempotency_keys)),
      hint = 'Give inputs as a JSON array, and idempotency_keys not at all or as many as there are inputs.';
  end if;
  return array(select i.input from jsonb_array_elements(inputs_of.inputs) i (input));
end
$$;

-- The flow that a name stands for; its shape is kept as it is until the transaction ends. All starts of a flow share a lock in
-- memory: one of the flow's row, which many hold at the same time, would be written to the log, and change the row. With is_exact the
-- name is that of a version.
create function pgflow.lock_flow(name text, is_exact boolean default false)
returns pgflow.flows
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  locked text;
  flow pgflow.flows;
begin
  loop
    select n.slug into locked
    from (
      select coalesce((
        select a.flow_slug from pgflow.flow_aliases a where a.alias = lock_flow.name and not lock_flow.is_exact
      ), lock_flow.name) as slug
    ) n
    where pg_advisory_xact_lock_shared(hashtextextended('pgflow.shape:' || n.slug, 0)) is not null;
    -- What it is now: the lock may have been awaited.
    select f.* into flow from pgflow.flows f
    where f.flow_slug = coalesce((
      select a.flow_slug from pgflow.flow_aliases a where a.alias = lock_flow.name and not lock_flow.is_exact
    ), lock_flow.name);
    if not found then
      perform pgflow.assert_valid_slug(lock_flow.name);
      raise exception using
        errcode = 'PT404',
        message = format('flow "%s" does not exist', lock_flow.name),
        hint = 'Check the slug; a flow exists once a worker that has it was started, or its compiled SQL was run.';
    end if;
    exit when flow.flow_slug = locked;
  end loop;
  if current_setting('transaction_isolation') <> 'read committed' then
    perform from pgflow.flows f where f.flow_slug = locked for key share; -- an error if it was deleted after the snapshot
  end if;
  return flow;
end
$$;

-- Refuses a start that makes no sense.
create function pgflow.assert_can_start(
  flow pgflow.flows,
  steps int,
  inputs jsonb[],
  idempotency_keys text[],
  metadata jsonb,
  delay int,
  priority text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if assert_can_start.steps = 0 then
    raise exception using
      errcode = 'PT400',
      message = format('flow "%s" has no steps', flow.flow_slug),
      hint = 'Add them first: select pgflow.add_step(…).';
  end if;
  if num_nulls(variadic assert_can_start.inputs) > 0 then
    raise exception using
      errcode = 'PT400',
      message = format('the input for flow "%s" is missing', flow.flow_slug),
      hint = 'Give the argument input any JSON value, for instance {} or null.';
  end if;
  if num_nonnulls(variadic assert_can_start.idempotency_keys) > 0
     and exists (select from unnest(assert_can_start.idempotency_keys) key where length(key) not between 1 and 255) then
    raise exception using
      errcode = 'PT400',
      message = format('an idempotency key for flow "%s" is empty or too long', flow.flow_slug),
      hint = 'Give a key 1 to 255 characters, for instance the id of what the run is for, or leave it out.';
  end if;
  if octet_length(assert_can_start.metadata::text) > 65536 then
    raise exception using
      errcode = 'PT413',
      message = format('metadata of %s bytes are too large', octet_length(assert_can_start.metadata::text)),
      hint = 'Keep metadata, as JSON text, within 64 KB: they say what a run belongs to; its data go into the input.';
  end if;
  if assert_can_start.delay is null or assert_can_start.delay not between 0 and 31536000 then
    raise exception using
      errcode = 'PT400', message = 'delay is not a number of seconds',
      hint = 'Give delay in whole seconds, from 0 to a year (31536000).';
  end if;
  if assert_can_start.priority not in ('high', 'normal', 'low') then
    raise exception using
      errcode = 'PT400',
      message = format('priority is %s', left(to_json(assert_can_start.priority)::text, 100)),
      hint = 'Give priority as high, normal or low, or leave it out: it is then the flow''s.';
  end if;
  if flow.input_schema is not null then
    perform pgflow.assert_valid_inputs(flow, assert_can_start.inputs);
  end if;
end
$$;

-- The run that a start met instead of making one; an error where it is not the same start. One that was deleted since is
-- started after all. Only who knows a run's id is told of it: what a key found is not named in errors.
create function pgflow.existing_run(
  flow pgflow.flows,
  run_id uuid,
  input jsonb,
  idempotency_key text,
  owner_id uuid,
  group_id uuid,
  metadata jsonb,
  delay int,
  priority text,
  is_client boolean
)
returns pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
  named text := format('run_id %s', existing_run.run_id);
begin
  select r.* into run from pgflow.runs r where r.run_id = existing_run.run_id;
  if not found then
    named := format('the idempotency key %s', to_json(existing_run.idempotency_key));
    select r.* into run
    from (
      select k.run_id from pgflow.run_keys k
      where k.owner_id = existing_run.owner_id and k.alias = flow.alias and k.key = existing_run.idempotency_key
      union all
      select k.run_id from pgflow.run_keys k
      where existing_run.owner_id is null and k.owner_id is null and k.alias = flow.alias and k.key = existing_run.idempotency_key
    ) found_key
    join pgflow.runs r using (run_id);
  end if;
  if not found then
    delete from pgflow.run_keys k where k.run_id = existing_run.run_id; -- which this start has taken for the run that is gone
    select r.* into run from pgflow.start_runs(
      flow.flow_slug, array[existing_run.run_id], array[existing_run.input], array[existing_run.idempotency_key],
      owner_id, group_id, metadata, delay, priority, is_client
    ) r;
    return run;
  end if;
  if run.owner_id is distinct from existing_run.owner_id
     or existing_run.idempotency_key <> coalesce(run.idempotency_key, '')
     or flow.alias <> (select f.alias from pgflow.flows f where f.flow_slug = run.flow_slug) then
    raise exception using
      errcode = 'PT409',
      message = format('%s is taken', named),
      hint = 'Leave it out, or use another one, to start a new run.';
  end if;
  if run.input <> existing_run.input then
    raise exception using
      errcode = 'PT409',
      message = format('%s was used with another input for flow "%s"', named, flow.alias),
      hint = 'Use a new idempotency key for a new input.';
  end if;
  return run;
end
$$;

-- The signed-in user of the request: auth.uid(), but null instead of an error for a subject that is no uuid, and there
-- also without a schema auth.
create function pgflow.current_user_id()
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  claims text := current_setting('request.jwt.claims', true);
begin
  if claims <> '' and claims::jsonb ->> 'sub' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    return (claims::jsonb ->> 'sub')::uuid;
  end if;
  return null;
end
$$;
