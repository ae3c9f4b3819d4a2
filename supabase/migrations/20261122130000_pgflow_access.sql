-- Chapter 20: who may do what. All grants, policies and the exposed API.
--
-- Clients reach nothing but pgflow_public. Its functions run as their caller and call the few definer functions here,
-- which look at who the caller is. Tables have row level security and no grants to clients: a second wall.

-- The role that the caller acts as, also inside definer functions.
create function pgflow.caller_role()
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(nullif(current_setting('role', true), 'none'), session_user)
$$;

-- Whether the caller is the service role or above it, and so not bound by ownership.
create function pgflow.caller_is_service()
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pg_has_role(pgflow.caller_role(), 'service_role', 'member')
$$;

-- Whether the signed-in user may see, cancel and retry a run. Replace it to share runs, for instance within teams:
--   create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid) returns boolean …
create function pgflow.can_access_run(run_id uuid, owner_id uuid)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(owner_id = pgflow.current_user_id(), false)
$$;
comment on function pgflow.can_access_run is 'Decides which runs a signed-in user may access; replaceable. Default: their own.';

-- Raises PT404 where a run does not exist, or is not the caller's.
create function pgflow.assert_can_access_run(run_id uuid)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select from pgflow.runs r
    where r.run_id = assert_can_access_run.run_id
      and (pgflow.caller_is_service() or pgflow.can_access_run(r.run_id, r.owner_id))
  ) then
    raise exception using
      errcode = 'PT404',
      message = format('run %s does not exist, or is not yours', coalesce(assert_can_access_run.run_id::text, 'null')),
      hint = 'Sign in as the user who started the run, and check its id.';
  end if;
end
$$;

-- A run with its step states and the number of the last event in it, from one look at the database.
create function pgflow.snapshot(run_id uuid)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select to_jsonb(r) - 'remaining_steps' || jsonb_build_object(
    'seq', (select coalesce(max(e.seq), 0) from pgflow.run_events e where e.run_id = r.run_id),
    'steps', (
      select jsonb_agg(to_jsonb(ss) - array['run_id', 'flow_slug', 'remaining_deps', 'remaining_tasks'] order by s.step_index)
      from pgflow.step_states ss
      join pgflow.steps s using (flow_slug, step_slug)
      where ss.run_id = r.run_id
    )
  )
  from pgflow.runs r
  where r.run_id = snapshot.run_id
$$;

-- Raises PT403 where the flow is not for the caller's role to start.
create function pgflow.assert_may_start(flow_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  required text := (pgflow.held_flow(assert_may_start.flow_slug)).start_role;
begin
  if required <> 'anon' and not pgflow.caller_is_service() and not pg_has_role(pgflow.caller_role(), required, 'member') then
    raise exception using
      errcode = 'PT403',
      message = format('the role %s may not start flow "%s"', pgflow.caller_role(), assert_may_start.flow_slug),
      detail = format('its start_role is %s', required),
      hint = case required
        when 'authenticated' then 'Sign in first.'
        else 'Start it on the server with a secret key, or define the flow with start_role authenticated.'
      end;
  end if;
end
$$;

create function pgflow.client_start_flow(
  flow_slug text,
  input jsonb,
  idempotency_key text,
  metadata jsonb,
  watch boolean,
  delay int
)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the flow's start_role decides
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
begin
  perform pgflow.assert_may_start(client_start_flow.flow_slug);
  select r.* into run from pgflow.start_flow(
    client_start_flow.flow_slug, client_start_flow.input,
    idempotency_key => client_start_flow.idempotency_key, metadata => client_start_flow.metadata,
    delay => client_start_flow.delay
  ) r;
  if client_start_flow.watch then
    perform pgflow.watch_run(run.run_id);
  end if;
  return pgflow.snapshot(run.run_id);
end
$$;

create function pgflow.client_start_flows(
  flow_slug text,
  inputs jsonb,
  idempotency_keys text[],
  metadata jsonb,
  delay int
)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the flow's start_role decides
set search_path = pg_catalog, pg_temp
as $$
declare
  run_ids uuid[];
begin
  perform pgflow.assert_may_start(client_start_flows.flow_slug);
  run_ids := array(
    select r.run_id
    from pgflow.start_flows(
      client_start_flows.flow_slug, client_start_flows.inputs, client_start_flows.idempotency_keys,
      metadata => client_start_flows.metadata, delay => client_start_flows.delay
    ) with ordinality r
    order by r.ordinality
  );
  return (
    select coalesce(jsonb_agg(pgflow.snapshot(r.run_id) order by r.n), '[]')
    from unnest(run_ids) with ordinality r (run_id, n)
  );
end
$$;

create function pgflow.client_get_run(run_id uuid, watch boolean)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_get_run.run_id);
  if client_get_run.watch then
    perform pgflow.watch_run(client_get_run.run_id);
  end if;
  return pgflow.snapshot(client_get_run.run_id);
end
$$;

create function pgflow.client_get_run_events(run_id uuid, after bigint, watch boolean)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_get_run_events.run_id);
  if client_get_run_events.watch then
    perform pgflow.watch_run(client_get_run_events.run_id);
  end if;
  return (
    select coalesce(jsonb_agg(e.event order by e.seq), '[]')
    from (
      select record.seq, record.event
      from pgflow.run_event_records record
      where record.run_id = client_get_run_events.run_id and record.seq > coalesce(client_get_run_events.after, 0)
      order by record.seq
      limit 1000
    ) e
  );
end
$$;

create function pgflow.client_cancel_run(run_id uuid, reason text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_cancel_run.run_id);
  perform pgflow.cancel_run(client_cancel_run.run_id, client_cancel_run.reason);
  return pgflow.snapshot(client_cancel_run.run_id);
end
$$;

create function pgflow.client_retry_run(run_id uuid)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_retry_run.run_id);
  perform pgflow.retry_run(client_retry_run.run_id);
  return pgflow.snapshot(client_retry_run.run_id);
end
$$;

create function pgflow.client_list_runs(
  flow_slug text,
  status text,
  metadata jsonb,
  owner_id uuid,
  before uuid,
  quantity int
)
returns jsonb
language plpgsql
stable
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan -- which index serves depends on what is asked for
as $$
declare
  is_service boolean := pgflow.caller_is_service();
  listed_owner uuid := client_list_runs.owner_id;
  last_seen timestamptz;
  versions text[];
  only_version text := client_list_runs.flow_slug; -- as an equality, since that keeps the order of the index
begin
  if exists (select from pgflow.flow_aliases a where a.alias = client_list_runs.flow_slug) then
    versions := array(select f.flow_slug from pgflow.flows f where f.alias = client_list_runs.flow_slug);
    only_version := null;
  end if;
  if not is_service then
    listed_owner := coalesce(listed_owner, pgflow.current_user_id());
    if listed_owner is null then
      return '[]';
    end if;
  end if;
  if client_list_runs.before is not null then
    perform pgflow.assert_can_access_run(client_list_runs.before);
    last_seen := (select r.started_at from pgflow.runs r where r.run_id = client_list_runs.before);
  end if;
  return (
    select coalesce(
      jsonb_agg(to_jsonb(listed) - 'remaining_steps' order by listed.started_at desc, listed.run_id desc), '[]'
    )
    from (
      select r.*
      from pgflow.runs r
      where (listed_owner is null or r.owner_id = listed_owner)
        and (client_list_runs.flow_slug is null or r.flow_slug = only_version or r.flow_slug = any (versions))
        and (client_list_runs.status is null or r.status = client_list_runs.status)
        and (client_list_runs.metadata is null or r.metadata @> client_list_runs.metadata)
        and (last_seen is null or (r.started_at, r.run_id) < (last_seen, client_list_runs.before))
        and (is_service or pgflow.can_access_run(r.run_id, r.owner_id))
      order by r.started_at desc, r.run_id desc
      limit least(greatest(client_list_runs.quantity, 0), 1000)
    ) listed
  );
end
$$;

-- The exposed API.

-- Which version of the migrations this database has, for packages that meet a missing function or argument.
--   supabase.schema('pgflow_public').rpc('schema_version')
create function pgflow_public.schema_version()
returns int
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.schema_version()
$$;
comment on function pgflow_public.schema_version is 'The version of the installed migrations.';

-- Starts a run of a flow and answers with its snapshot. `delay` is in seconds.
--   supabase.schema('pgflow_public').rpc('start_flow', { flow_slug: 'analyze_document', input: { path: 'README.md' } })
create function pgflow_public.start_flow(
  flow_slug text,
  input jsonb,
  idempotency_key text default null,
  metadata jsonb default null,
  watch boolean default false,
  delay int default 0
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  -- PostgREST passes the JSON value null as SQL's.
  select pgflow.client_start_flow(flow_slug, coalesce(input, 'null'), idempotency_key, metadata, watch, delay)
$$;
comment on function pgflow_public.start_flow is
  'Starts a run of a flow and answers with its snapshot. watch: broadcast its events for five minutes.';

-- Starts a run for each of many inputs, all or none, and answers with their snapshots, in the order of the inputs.
--   supabase.schema('pgflow_public').rpc('start_flows', { flow_slug: 'resize_image', inputs: [{ path: 'a.png' }] })
create function pgflow_public.start_flows(
  flow_slug text,
  inputs jsonb,
  idempotency_keys text[] default null,
  metadata jsonb default null,
  delay int default 0
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_start_flows(flow_slug, inputs, idempotency_keys, metadata, delay)
$$;
comment on function pgflow_public.start_flows is
  'Starts a run of a flow for each of many inputs and answers with their snapshots.';

-- The snapshot of a run: its row, its step states, and `seq`, the number of the last event in it.
--   supabase.schema('pgflow_public').rpc('get_run', { run_id })
create function pgflow_public.get_run(run_id uuid, watch boolean default false)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_get_run(run_id, watch)
$$;
comment on function pgflow_public.get_run is 'The snapshot of a run. watch: broadcast its events for five minutes.';

-- Up to 1,000 events of a run after the one numbered `after`, in order.
--   supabase.schema('pgflow_public').rpc('get_run_events', { run_id, after: 3 })
create function pgflow_public.get_run_events(run_id uuid, after bigint default 0, watch boolean default false)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_get_run_events(run_id, after, watch)
$$;
comment on function pgflow_public.get_run_events is
  'Up to 1,000 events of a run after `after`. watch: broadcast its events for five minutes.';

-- Cancels a run and answers with its snapshot; the reason becomes its error.
--   supabase.schema('pgflow_public').rpc('cancel_run', { run_id, reason: 'no longer needed' })
create function pgflow_public.cancel_run(run_id uuid, reason text default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_cancel_run(run_id, reason)
$$;
comment on function pgflow_public.cancel_run is 'Cancels a run and answers with its snapshot.';

-- Lets a failed or cancelled run go on from where it ended, and answers with its snapshot.
--   supabase.schema('pgflow_public').rpc('retry_run', { run_id })
create function pgflow_public.retry_run(run_id uuid)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_retry_run(run_id)
$$;
comment on function pgflow_public.retry_run is 'Lets a failed or cancelled run go on, and answers with its snapshot.';

-- Runs without their steps, the newest first, at most 1,000: the signed-in user's own, or of an owner whose runs they can
-- access; all of them for the service role. `before` is the run_id of the last one seen; it
-- must still be there.
--   supabase.schema('pgflow_public').rpc('list_runs', { flow_slug: 'analyze_document', status: 'failed' })
create function pgflow_public.list_runs(
  flow_slug text default null,
  status text default null,
  metadata jsonb default null,
  owner_id uuid default null,
  before uuid default null,
  quantity int default 50
)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_list_runs(flow_slug, status, metadata, owner_id, before, quantity)
$$;
comment on function pgflow_public.list_runs is 'Lists runs, the newest first; metadata is matched with @>.';

-- Row level security: the own runs for users, where somebody grants them the tables; everything else is closed.

alter table pgflow.flows enable row level security;
alter table pgflow.flow_aliases enable row level security;
alter table pgflow.steps enable row level security;
alter table pgflow.deps enable row level security;
alter table pgflow.runs enable row level security;
alter table pgflow.step_states enable row level security;
alter table pgflow.step_tasks enable row level security;
alter table pgflow.run_events enable row level security;
alter table pgflow.run_watches enable row level security;
alter table pgflow.workers enable row level security;

create policy own_runs on pgflow.runs for select to authenticated
  using (pgflow.can_access_run(run_id, owner_id));
create policy own_step_states on pgflow.step_states for select to authenticated
  using (exists (select from pgflow.runs r where r.run_id = step_states.run_id));
create policy own_run_events on pgflow.run_events for select to authenticated
  using (exists (select from pgflow.runs r where r.run_id = run_events.run_id));

create policy closed on pgflow.flows for all to anon, authenticated using (false);
create policy closed on pgflow.flow_aliases for all to anon, authenticated using (false);
create policy closed on pgflow.steps for all to anon, authenticated using (false);
create policy closed on pgflow.deps for all to anon, authenticated using (false);
create policy closed on pgflow.step_tasks for all to anon, authenticated using (false);
create policy closed on pgflow.run_watches for all to anon, authenticated using (false);
create policy closed on pgflow.workers for all to anon, authenticated using (false);

-- The private channels of runs. Nobody may insert, so that events cannot be forged.

-- Whether the caller may listen to a topic: that of a run they can access. Never raises, whatever the topic.
create function pgflow.can_read_topic(topic text)
returns boolean
language sql
stable
security definer -- clients have no rights on runs
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pgflow.runs r
    where r.run_id = case
        when can_read_topic.topic ~ '^pgflow:run:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
        then substr(can_read_topic.topic, 12)::uuid
      end
      and pgflow.can_access_run(r.run_id, r.owner_id)
  )
$$;

do $$
begin
  if to_regclass('realtime.messages') is not null then
    create policy pgflow_run_channels on realtime.messages for select to authenticated
      using (pgflow.can_read_topic((select realtime.topic())));
  end if;
end
$$;

-- Grants: execute is taken from everybody, then given by name.

revoke all on all tables in schema pgflow from public, anon, authenticated, service_role;
revoke all on all functions in schema pgflow, pgflow_public from public, anon, authenticated, service_role;

grant usage on schema pgflow_public, pgflow to anon, authenticated, service_role;

grant execute on function
  pgflow_public.start_flow(text, jsonb, text, jsonb, boolean, int),
  pgflow_public.start_flows(text, jsonb, text[], jsonb, int),
  pgflow_public.get_run(uuid, boolean),
  pgflow_public.get_run_events(uuid, bigint, boolean),
  pgflow_public.list_runs(text, text, jsonb, uuid, uuid, int),
  pgflow_public.cancel_run(uuid, text),
  pgflow_public.retry_run(uuid),
  pgflow_public.schema_version(),
  pgflow.schema_version(),
  pgflow.client_start_flow(text, jsonb, text, jsonb, boolean, int),
  pgflow.client_start_flows(text, jsonb, text[], jsonb, int),
  pgflow.client_get_run(uuid, boolean),
  pgflow.client_get_run_events(uuid, bigint, boolean),
  pgflow.client_list_runs(text, text, jsonb, uuid, uuid, int),
  pgflow.client_cancel_run(uuid, text),
  pgflow.client_retry_run(uuid)
to anon, authenticated, service_role;

grant execute on function pgflow.can_read_topic(text) to authenticated;
-- For teams that grant the tables to their users, whose policies call these.
grant execute on function pgflow.can_access_run(uuid, uuid), pgflow.current_user_id() to authenticated;

-- Workers with a secret key. What they call runs as the owner, since the service role has no rights on the tables.

do $$
declare
  for_workers regprocedure;
begin
  foreach for_workers in array array[
    'pgflow.register_flow', 'pgflow.register_worker', 'pgflow.settle_and_claim', 'pgflow.heartbeat', 'pgflow.hand_back',
    'pgflow.report_progress', 'pgflow.fetch_value', 'pgflow.stop_worker'
  ]::regproc[]::oid[]::regprocedure[] loop
    execute format('alter function %s security definer', for_workers);
    execute format('grant execute on function %s to service_role', for_workers);
  end loop;
end
$$;

grant execute on function
  pgflow_public.register_flow(jsonb),
  pgflow_public.register_worker(uuid, text, text[]),
  pgflow_public.settle_and_claim(jsonb, text[], int, uuid, int, int),
  pgflow_public.heartbeat(uuid, jsonb, int),
  pgflow_public.hand_back(jsonb),
  pgflow_public.report_progress(jsonb),
  pgflow_public.fetch_value(uuid, text, text),
  pgflow_public.stop_worker(uuid)
to service_role;
