-- Chapter 23: the exposed API of clients: thin functions that run as their caller.

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

-- Starts a run of a flow and answers with its snapshot. `delay` is in seconds; `group_id` is a team's, where
-- pgflow.can_start_in_group lets the caller start runs in it.
--   supabase.schema('pgflow_public').rpc('start_flow', { flow_slug: 'analyze_document', input: { path: 'README.md' } })
create function pgflow_public.start_flow(
  flow_slug text,
  input jsonb,
  idempotency_key text default null,
  metadata jsonb default null,
  watch boolean default false,
  delay int default 0,
  group_id uuid default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  -- PostgREST passes the JSON value null as SQL's.
  select pgflow.client_start_flow(flow_slug, coalesce(input, 'null'), idempotency_key, metadata, watch, delay, group_id)
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
  delay int default 0,
  group_id uuid default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_start_flows(flow_slug, inputs, idempotency_keys, metadata, delay, group_id)
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

-- Runs without their steps, the newest first, at most 1,000: the signed-in user's own, or those of an owner or group that
-- pgflow.can_access_run lets them see, of the newest 1,000 that match; all of them for the service role. `before` is the
-- run_id of the last one seen; it must still be there.
--   supabase.schema('pgflow_public').rpc('list_runs', { flow_slug: 'analyze_document', status: 'failed' })
create function pgflow_public.list_runs(
  flow_slug text default null,
  status text default null,
  metadata jsonb default null,
  owner_id uuid default null,
  before uuid default null,
  quantity int default 50,
  group_id uuid default null
)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_list_runs(flow_slug, status, metadata, owner_id, before, quantity, group_id)
$$;
comment on function pgflow_public.list_runs is 'Lists runs, the newest first; metadata is matched with @>.';

-- Erases what a deleted user leaves, and answers how many runs that were. For servers with a secret key.
--   supabase.schema('pgflow_public').rpc('forget_owner', { owner_id: user.id })
create function pgflow_public.forget_owner(owner_id uuid, quantity int default null)
returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.forget_owner(forget_owner.owner_id, forget_owner.quantity)
$$;
comment on function pgflow_public.forget_owner is 'Erases what a deleted user leaves. For servers with a secret key.';
