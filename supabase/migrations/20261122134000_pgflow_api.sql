-- Chapter 37: the exposed API of clients: thin functions that run as their caller.

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
-- pgflow.can_start_in_group lets the caller start runs in it. `priority` is high, normal or low: users may ask for the flow's own
-- or a lower one. `watch` is a UUID that the client has chosen for itself: the run's
-- events are sent to pgflow:user:<id of the user>, for a secret key to pgflow:watch:<the UUID>, until five minutes have passed.
--   supabase.schema('pgflow_public').rpc('start_flow', { flow_slug: 'analyze_document', input: { path: 'README.md' } })
create function pgflow_public.start_flow(
  flow_slug text,
  input jsonb,
  idempotency_key text default null,
  metadata jsonb default null,
  watch text default null,
  delay int default 0,
  group_id uuid default null,
  priority text default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  -- PostgREST passes the JSON value null as SQL's.
  select pgflow.client_start_flow(flow_slug, coalesce(input, 'null'), idempotency_key, metadata, watch, delay, group_id, priority)
$$;
comment on function pgflow_public.start_flow is
  'Starts a run of a flow and answers with its snapshot. watch: a UUID of the client, for five minutes of its events.';

-- Starts a run for each of many inputs, all or none, and answers with their snapshots, in the order of the inputs.
--   supabase.schema('pgflow_public').rpc('start_flows', { flow_slug: 'resize_image', inputs: [{ path: 'a.png' }] })
create function pgflow_public.start_flows(
  flow_slug text,
  inputs jsonb,
  idempotency_keys text[] default null,
  metadata jsonb default null,
  watch text default null,
  delay int default 0,
  group_id uuid default null,
  priority text default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_start_flows(flow_slug, inputs, idempotency_keys, metadata, watch, delay, group_id, priority)
$$;
comment on function pgflow_public.start_flows is
  'Starts a run of a flow for each of many inputs and answers with their snapshots.';

-- The snapshot of a run: its row, its step states, and `seq`, the number of the last event in it.
--   supabase.schema('pgflow_public').rpc('get_run', { run_id })
create function pgflow_public.get_run(run_id uuid, watch text default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_get_run(run_id, watch)
$$;
comment on function pgflow_public.get_run is 'The snapshot of a run. watch: as for start_flow.';

-- Up to 1,000 events of a run after the one numbered `after`, in order.
--   supabase.schema('pgflow_public').rpc('get_run_events', { run_id, after: 3 })
create function pgflow_public.get_run_events(run_id uuid, after bigint default 0, watch text default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_get_run_events(run_id, after, watch)
$$;
comment on function pgflow_public.get_run_events is
  'Up to 1,000 events of a run after `after`. watch: as for start_flow.';

-- What up to 1,000 runs have become, in one call. `cursors` has the seq of the last event that the caller knows of each run, or
-- null to learn only where it stands. The answer:
--   user_id  as whom the caller was understood: the `sub` of the token, or null
--   topic    where the events of watched runs are sent, or null
--   runs     those with news: run_id, status, seq of the last event, whether the run is watched, its next events, and whether
--            there is more to ask for. An answer has up to 10,000 events and about 1 MB.
--   missing  runs that do not exist, or that the caller may not see: run_id with code, message and hint
-- `watch` as for start_flow: it is renewed for all of these runs.
--   supabase.schema('pgflow_public').rpc('sync', { cursors: { [run_id]: 3 }, watch: crypto.randomUUID() })
create function pgflow_public.sync(cursors jsonb, watch text default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_sync(cursors, watch)
$$;
comment on function pgflow_public.sync is
  'The news of up to 1,000 runs after their cursors, {"<run_id>": <seq>}; renews their watches.';

-- Cancels a run and answers with its snapshot; the reason becomes its error. With `undo` what it has completed is undone.
--   supabase.schema('pgflow_public').rpc('cancel_run', { run_id, reason: 'no longer needed' })
create function pgflow_public.cancel_run(run_id uuid, reason text default null, undo boolean default false)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_cancel_run(run_id, reason, undo)
$$;
comment on function pgflow_public.cancel_run is 'Cancels a run and answers with its snapshot. With undo, what it has completed is undone.';

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
-- run_id of the last one seen; it must still be there. Runs that a step of another run has started are left out, unless `children`.
--   supabase.schema('pgflow_public').rpc('list_runs', { flow_slug: 'analyze_document', status: 'failed' })
create function pgflow_public.list_runs(
  flow_slug text default null,
  status text default null,
  metadata jsonb default null,
  owner_id uuid default null,
  before uuid default null,
  quantity int default 50,
  group_id uuid default null,
  watch text default null,
  children boolean default false
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_list_runs(flow_slug, status, metadata, owner_id, before, quantity, group_id, watch, children)
$$;
comment on function pgflow_public.list_runs is 'Lists runs, the newest first; metadata is matched with @>. watch: as for start_flow, of the open ones.';

-- The runs that the steps of a run have started, for those who may see that run: in the order of the steps, and of the items of a map. Each
-- has parent_run_id, parent_step_slug, parent_task_index and depth beside what list_runs shows. A page has `quantity`, 1,000 at most; `after` is the
-- parent_task_index of the last one of the page before, and goes with a step_slug.
--   supabase.schema('pgflow_public').rpc('list_children', { run_id, step_slug: 'lines' })
create function pgflow_public.list_children(
  run_id uuid,
  step_slug text default null,
  after int default null,
  quantity int default 100
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_list_children(run_id, step_slug, after, quantity)
$$;
comment on function pgflow_public.list_children is 'Lists the runs that the steps of a run have started, in the order of steps and items.';

-- Completes a wait that asks the caller; the first value counts, and the same one again is a success. Before the wait begins, the
-- value is kept.
--   supabase.schema('pgflow_public').rpc('complete_wait', { run_id, step_slug: 'approval', output: { approved: true } })
create function pgflow_public.complete_wait(run_id uuid, step_slug text, output jsonb default 'null')
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  -- PostgREST passes the JSON value null as SQL's.
  select pgflow.client_complete_wait(run_id, step_slug, coalesce(output, 'null'))
$$;
comment on function pgflow_public.complete_wait is 'Completes a wait that asks the caller; the first value counts.';

-- Rejects a wait that asks the caller: its step fails, with the reason as its error.
--   supabase.schema('pgflow_public').rpc('reject_wait', { run_id, step_slug: 'approval', reason: 'the budget is used up' })
create function pgflow_public.reject_wait(run_id uuid, step_slug text, reason text)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_reject_wait(run_id, step_slug, reason)
$$;
comment on function pgflow_public.reject_wait is 'Rejects a wait that asks the caller: its step fails with the reason.';

-- The waits that ask the caller, the oldest first, at most 1,000 and about 1 MB; for the service role, all. Each has run_id,
-- flow_slug, step_slug, started_at, due_at, the input of its step, {"run": …, "<dep>": …}, and output_schema. `after` is the last entry
-- of the page before; an empty page is the end. `watch` is a UUID of the client: for five minutes, a message `waits` is sent to
-- pgflow:user:<id of the user> when one is added or over.
--   supabase.schema('pgflow_public').rpc('list_waits', { flow_slug: 'publish' })
create function pgflow_public.list_waits(
  flow_slug text default null,
  quantity int default 50,
  after jsonb default null,
  run_id uuid default null,
  watch text default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_list_waits(flow_slug, quantity, after, run_id, watch)
$$;
comment on function pgflow_public.list_waits is
  'Lists the waits that ask the caller, the oldest first, with the input of their step. watch: as for start_flow, for news of the list.';

-- Makes a schedule of the signed-in user, or changes the one with this slug, and answers with it: the flow starts at the times of a
-- cron expression in a time zone, and the runs belong to the user. The flow has to be schedulable. The slug is the flow's, unless
-- the user has several. `overlap`, `catch_up` and `catch_up_window` (seconds) as for pgflow.schedule. `owner_id` is for secret keys.
--   supabase.schema('pgflow_public').rpc('schedule_flow', { flow_slug: 'digest', cron: '0 7 * * *', time_zone: 'Europe/Berlin' })
create function pgflow_public.schedule_flow(
  flow_slug text,
  cron text,
  input jsonb default 'null',
  time_zone text default 'UTC',
  schedule_slug text default null,
  overlap text default 'skip',
  catch_up text default 'last',
  catch_up_window int default 86400,
  owner_id uuid default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  -- PostgREST passes the JSON value null as SQL's.
  select pgflow.client_schedule_flow(
    flow_slug, cron, coalesce(input, 'null'), time_zone, schedule_slug, overlap, catch_up, catch_up_window, owner_id
  )
$$;
comment on function pgflow_public.schedule_flow is
  'Makes a schedule of the signed-in user, or changes the one with this slug, and answers with it.';

-- The schedules of the signed-in user, at most 1,000; for secret keys those of `owner_id`, or all.
--   supabase.schema('pgflow_public').rpc('list_schedules')
create function pgflow_public.list_schedules(flow_slug text default null, owner_id uuid default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_list_schedules(flow_slug, owner_id)
$$;
comment on function pgflow_public.list_schedules is 'The schedules of the signed-in user; flow_slug is the name without a version.';

-- Pauses a schedule: its times pass without a run. Answers with it.
--   supabase.schema('pgflow_public').rpc('pause_schedule', { schedule_slug: 'digest' })
create function pgflow_public.pause_schedule(schedule_slug text, owner_id uuid default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_change_schedule('pause', schedule_slug, owner_id)
$$;
comment on function pgflow_public.pause_schedule is 'Pauses a schedule of the signed-in user and answers with it.';

-- Resumes a paused schedule from its next time on, and answers with it.
--   supabase.schema('pgflow_public').rpc('resume_schedule', { schedule_slug: 'digest' })
create function pgflow_public.resume_schedule(schedule_slug text, owner_id uuid default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_change_schedule('resume', schedule_slug, owner_id)
$$;
comment on function pgflow_public.resume_schedule is 'Resumes a schedule of the signed-in user and answers with it.';

-- Deletes a schedule, and answers with what it was; runs that it has started go on.
--   supabase.schema('pgflow_public').rpc('delete_schedule', { schedule_slug: 'digest' })
create function pgflow_public.delete_schedule(schedule_slug text, owner_id uuid default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_change_schedule('delete', schedule_slug, owner_id)
$$;
comment on function pgflow_public.delete_schedule is 'Deletes a schedule of the signed-in user.';

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
