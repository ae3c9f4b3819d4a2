-- Chapter 8: runs begin.

create type pgflow.run_request as (
  run_id uuid,
  input jsonb,
  idempotency_key text
);
comment on type pgflow.run_request is 'A start that is asked for; a run_id that is null is given one.';

-- Starts runs, or finds those that the same keys have started, of another version too: what start_flow and start_flows
-- do.
create function pgflow.start_runs(
  flow_slug text,
  requests pgflow.run_request[],
  owner_id uuid,
  group_id uuid,
  metadata jsonb,
  delay int
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
  flow pgflow.flows := pgflow.lock_flow(start_runs.flow_slug);
  new_ids uuid[] := pgflow.new_run_ids(cardinality(requests), as_of);
  requested pgflow.run_request[];
  has_keys boolean;
  keyed uuid[];
  started uuid[];
begin
  perform pgflow.assert_can_start(flow, requests, start_runs.metadata, start_runs.delay);
  select array_agg(
           row(coalesce(r.run_id, new_ids[r.ordinality]), r.input, r.idempotency_key)::pgflow.run_request order by r.ordinality
         ),
         bool_or(r.idempotency_key is not null)
  into requested, has_keys
  from unnest(requests) with ordinality r;

  if has_keys then
    with key as (
      insert into pgflow.run_keys (run_id, alias, key, owner_id)
      select r.run_id, flow.alias, r.idempotency_key, started_by
      from unnest(requested) with ordinality r
      where r.idempotency_key is not null
      order by r.idempotency_key, r.ordinality -- one order for all, since a start waits for another with the same key
      on conflict do nothing
      returning run_id
    )
    select array_agg(run_id) into keyed from key;
  end if;
  with run as (
    insert into pgflow.runs (run_id, flow_slug, input, owner_id, group_id, idempotency_key, metadata, started_at)
    select r.run_id, flow.flow_slug, r.input, started_by, start_runs.group_id, r.idempotency_key, start_runs.metadata, as_of
    from unnest(requested) with ordinality r
    where r.idempotency_key is null or r.run_id = any (keyed)
    order by r.ordinality
    on conflict do nothing
    returning run_id
  )
  select array_agg(run_id) into started from run;
  perform pgflow.start_steps(flow.flow_slug, started, as_of, start_runs.delay);

  if cardinality(started) = cardinality(requested) then
    return query
      select run.* from unnest(requested) with ordinality r join pgflow.runs run using (run_id) order by r.ordinality;
    return;
  end if;
  return query
    select run.*
    from unnest(requested) with ordinality r
    cross join lateral (
      select own.* from pgflow.runs own where own.run_id = r.run_id and own.run_id = any (started)
      union all
      select existing.*
      from pgflow.existing_run(
        flow, requested[r.ordinality], started_by, start_runs.group_id, start_runs.metadata, start_runs.delay
      ) existing
      where r.run_id <> all (coalesce(started, '{}'))
    ) run
    order by r.ordinality;
end
$$;

-- Starts a run: the run, a state for each step, and the tasks of the root steps, all in the caller's transaction.
--   select * from pgflow.start_flow('analyze_document', '{"path": "README.md"}');
-- An alias starts its newest version. The same idempotency key (or run_id) of the same owner and flow, whatever its
-- version, gives the run that exists; with another input it is an error. The owner is the one named, else the signed-in user;
-- `group_id` is that of a team, for pgflow.can_access_run to look at. `delay` is in seconds, a year at most.
create function pgflow.start_flow(
  flow_slug text,
  input jsonb,
  run_id uuid default null,
  idempotency_key text default null,
  owner_id uuid default null,
  metadata jsonb default null,
  delay int default 0,
  group_id uuid default null
)
returns setof pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select * from pgflow.start_runs(
    start_flow.flow_slug,
    array[row(start_flow.run_id, start_flow.input, start_flow.idempotency_key)::pgflow.run_request],
    start_flow.owner_id, start_flow.group_id, start_flow.metadata, start_flow.delay
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
  group_id uuid default null
)
returns setof pgflow.runs
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
  return query select * from pgflow.start_runs(
    start_flows.flow_slug,
    array(
      select row(null, i.input, start_flows.idempotency_keys[i.n])::pgflow.run_request
      from jsonb_array_elements(start_flows.inputs) with ordinality as i (input, n)
      order by i.n
    ),
    start_flows.owner_id, start_flows.group_id, start_flows.metadata, start_flows.delay
  );
end
$$;
comment on function pgflow.start_flows is 'Starts a run of a flow for each of many inputs.';

-- A state for each step of new runs; the root steps go on at once.
create function pgflow.start_steps(flow_slug text, run_ids uuid[], as_of timestamptz, delay int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  started pgflow.step_key[];
  ready pgflow.step_key[];
begin
  with state as (
    insert into pgflow.step_states (
      run_id, step_slug, flow_slug, status, remaining_deps, remaining_tasks, initial_tasks, created_at, started_at
    )
    select run_id, s.step_slug, s.flow_slug, case when starts then 'started' else 'created' end,
           s.deps_count, case when starts then 1 end, case when starts then 1 end, as_of, case when starts then as_of end
    from unnest(run_ids) run_id
    cross join pgflow.steps s
    cross join lateral (select s.deps_count = 0 and s.is_plain) as root (starts)
    where s.flow_slug = start_steps.flow_slug
    returning run_id, step_slug, status, remaining_deps
  )
  select array_agg(row(run_id, step_slug)::pgflow.step_key) filter (where status = 'started'),
         array_agg(row(run_id, step_slug)::pgflow.step_key) filter (where status = 'created' and remaining_deps = 0)
  into started, ready
  from state;
  perform pgflow.advance(pgflow.decide(ready), as_of, started, delay);
end
$$;

-- The flow that a name stands for; its shape is kept as it is until the transaction ends. All starts of a flow share a lock in
-- memory: one of the flow's row, which many hold at the same time, would be written to the log, and change the row.
create function pgflow.lock_flow(name text)
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
      select coalesce((select a.flow_slug from pgflow.flow_aliases a where a.alias = lock_flow.name), lock_flow.name) as slug
    ) n
    where pg_advisory_xact_lock_shared(hashtextextended('pgflow.shape:' || n.slug, 0)) is not null;
    -- What it is now: the lock may have been awaited.
    select f.* into flow from pgflow.flows f
    where f.flow_slug = coalesce((select a.flow_slug from pgflow.flow_aliases a where a.alias = lock_flow.name), lock_flow.name);
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
  requests pgflow.run_request[],
  metadata jsonb,
  delay int
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  lacks_input boolean;
  has_bad_key boolean;
begin
  select bool_or(r.input is null), bool_or(length(r.idempotency_key) not between 1 and 255)
  into lacks_input, has_bad_key
  from unnest(requests) r;
  if not exists (select from pgflow.steps s where s.flow_slug = flow.flow_slug) then
    raise exception using
      errcode = 'PT400',
      message = format('flow "%s" has no steps', flow.flow_slug),
      hint = 'Add them first: select pgflow.add_step(…).';
  end if;
  if lacks_input then
    raise exception using
      errcode = 'PT400',
      message = format('the input for flow "%s" is missing', flow.flow_slug),
      hint = 'Give the argument input any JSON value, for instance {} or null.';
  end if;
  if has_bad_key then
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
  if flow.input_schema is not null then
    perform pgflow.assert_valid_inputs(flow, array(select r.input from unnest(requests) r));
  end if;
end
$$;

-- The run that a start met instead of making one; an error where it is not the same start. One that was deleted since is
-- started after all. Only who knows a run's id is told of it: what a key found is not named in errors.
create function pgflow.existing_run(
  flow pgflow.flows,
  request pgflow.run_request,
  owner_id uuid,
  group_id uuid,
  metadata jsonb,
  delay int
)
returns pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
  named text := format('run_id %s', request.run_id);
begin
  select r.* into run from pgflow.runs r where r.run_id = request.run_id;
  if not found then
    named := format('the idempotency key %s', to_json(request.idempotency_key));
    select r.* into run
    from (
      select k.run_id from pgflow.run_keys k
      where k.owner_id = existing_run.owner_id and k.alias = flow.alias and k.key = request.idempotency_key
      union all
      select k.run_id from pgflow.run_keys k
      where existing_run.owner_id is null and k.owner_id is null and k.alias = flow.alias and k.key = request.idempotency_key
    ) found_key
    join pgflow.runs r using (run_id);
  end if;
  if not found then
    select r.* into run from pgflow.start_runs(flow.flow_slug, array[request], owner_id, group_id, metadata, delay) r;
    return run;
  end if;
  if run.owner_id is distinct from existing_run.owner_id
     or request.idempotency_key <> coalesce(run.idempotency_key, '')
     or flow.alias <> (select f.alias from pgflow.flows f where f.flow_slug = run.flow_slug) then
    raise exception using
      errcode = 'PT409',
      message = format('%s is taken', named),
      hint = 'Leave it out, or use another one, to start a new run.';
  end if;
  if run.input <> request.input then
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
