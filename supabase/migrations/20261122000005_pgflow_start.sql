-- Chapter 5: a run begins.

-- Starts a run: the run, a state for each step, and the tasks of the root steps, all in the caller's transaction.
--   select * from pgflow.start_flow('analyze_document', '{"path": "README.md"}');
-- The same idempotency key (or run_id) of the same owner and flow gives the run that exists; with another input it is
-- an error. The owner is the one named, else the signed-in user. `delay` is in seconds.
create function pgflow.start_flow(
  flow_slug text,
  input jsonb,
  run_id uuid default null,
  idempotency_key text default null,
  owner_id uuid default null,
  metadata jsonb default null,
  delay int default 0
)
returns setof pgflow.runs
language plpgsql
set search_path = ''
as $$
#variable_conflict use_column
declare
  started_by uuid := coalesce(start_flow.owner_id, pgflow.current_user_id());
  now timestamptz := pgflow.now();
  roots pgflow.step_key[];
  run pgflow.runs;
begin
  perform pgflow.assert_can_start(start_flow.flow_slug, start_flow.input, start_flow.delay);

  insert into pgflow.runs (run_id, flow_slug, input, remaining_steps, owner_id, idempotency_key, metadata, started_at)
  select coalesce(start_flow.run_id, gen_random_uuid()), start_flow.flow_slug, start_flow.input, count(*),
         started_by, start_flow.idempotency_key, start_flow.metadata, now
  from pgflow.steps s where s.flow_slug = start_flow.flow_slug
  on conflict do nothing
  returning * into run;
  if not found then
    return next pgflow.existing_run(
      start_flow.flow_slug, start_flow.input, start_flow.run_id, started_by, start_flow.idempotency_key
    );
    return;
  end if;

  with state as (
    insert into pgflow.step_states (
      run_id, step_slug, flow_slug, status, remaining_deps, remaining_tasks, initial_tasks, created_at, started_at
    )
    select run.run_id, s.step_slug, s.flow_slug,
           case when is_root then 'started' else 'created' end, s.deps_count,
           case when is_root then 1 end, case when is_root then 1 end, now, case when is_root then now end
    from pgflow.steps s
    cross join lateral (select s.deps_count = 0) as kind (is_root)
    where s.flow_slug = run.flow_slug
    returning run_id, step_slug, status
  )
  select array_agg(row(s.run_id, s.step_slug)::pgflow.step_key) filter (where s.status = 'started')
  into roots from state s;
  perform pgflow.create_tasks(roots, now, start_flow.delay);
  return next run;
end
$$;
comment on function pgflow.start_flow is
  'Starts a run of a flow, or returns the one that the idempotency key (or run_id) has started already.';

-- Refuses a start that makes no sense, and holds the flow's shape as it is until the transaction ends.
create function pgflow.assert_can_start(flow_slug text, input jsonb, delay int)
returns void
language plpgsql
set search_path = ''
as $$
begin
  perform pgflow.assert_valid_slug(assert_can_start.flow_slug);
  perform from pgflow.flows f where f.flow_slug = assert_can_start.flow_slug for key share;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('flow "%s" does not exist', assert_can_start.flow_slug),
      hint = 'Check the slug; a flow exists once a worker that has it was started, or its compiled SQL was run.';
  end if;
  if not exists (select from pgflow.steps s where s.flow_slug = assert_can_start.flow_slug) then
    raise exception using
      errcode = 'PT400',
      message = format('flow "%s" has no steps', assert_can_start.flow_slug),
      hint = 'Add them first: select pgflow.add_step(…).';
  end if;
  if assert_can_start.input is null then
    raise exception using
      errcode = 'PT400',
      message = format('the input for flow "%s" is missing', assert_can_start.flow_slug),
      hint = 'Give the argument input any JSON value, for instance {} or null.';
  end if;
  if assert_can_start.delay is null or assert_can_start.delay < 0 then
    raise exception using
      errcode = 'PT400', message = 'delay is not a number of seconds', hint = 'Give delay in whole seconds, 0 or more.';
  end if;
end
$$;

-- The run that a start met instead of making one; an error where it is not the same start.
create function pgflow.existing_run(flow_slug text, input jsonb, run_id uuid, owner_id uuid, idempotency_key text)
returns pgflow.runs
language plpgsql
stable
set search_path = ''
as $$
declare
  run pgflow.runs;
begin
  select r.* into run from pgflow.runs r
  where r.run_id = existing_run.run_id
     or (r.flow_slug = existing_run.flow_slug
         and r.owner_id is not distinct from existing_run.owner_id
         and r.idempotency_key = existing_run.idempotency_key)
  order by r.run_id = existing_run.run_id desc nulls last
  limit 1;
  if run.flow_slug is distinct from existing_run.flow_slug or run.owner_id is distinct from existing_run.owner_id then
    raise exception using
      errcode = 'PT409',
      message = format('run_id %s is taken', existing_run.run_id),
      hint = 'Leave run_id out to get a new one.';
  end if;
  if run.input <> existing_run.input then
    raise exception using
      errcode = 'PT409',
      message = format('run %s of flow "%s" was started with another input', run.run_id, run.flow_slug),
      detail = format('idempotency key: %s', coalesce(to_json(run.idempotency_key)::text, 'none')),
      hint = 'Use a new idempotency key for a new input.';
  end if;
  return run;
end
$$;

-- The signed-in user of the request: auth.uid(), but null instead of an error for a subject that is no uuid, and there
-- also without a schema auth.
create function pgflow.current_user_id()
returns uuid
language sql
stable
set search_path = ''
as $$
  select case when sub ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then sub::uuid end
  from (select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub') as claims (sub)
$$;
