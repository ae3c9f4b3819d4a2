-- Chapter 31: the API of workers that have a secret key instead of the database's password.
--
-- The engine's functions for workers, through PostgREST, for the service role only. They have a schema of their own, so that
-- the types of an app, generated from pgflow_public, have only what apps call. Rows come as one JSON array, which no row
-- limit cuts.

create function pgflow_worker.schema_version()
returns int
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.schema_version()
$$;
comment on function pgflow_worker.schema_version is 'The version of the installed migrations.';

create function pgflow_worker.register_flow(definition jsonb)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.register_flow(register_flow.definition)
$$;
comment on function pgflow_worker.register_flow is
  'Creates a flow from its definition, or updates its options.';

create function pgflow_worker.register_worker(worker_id uuid, name text, flow_slugs text[])
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.register_worker(register_worker.worker_id, register_worker.name, register_worker.flow_slugs)
$$;
comment on function pgflow_worker.register_worker is 'Lists a worker that has started.';

create function pgflow_worker.settle_and_claim(
  results jsonb,
  flow_slugs text[],
  quantity int,
  worker_id uuid,
  lease int default 30,
  inline_limit int default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select to_jsonb(s) || jsonb_build_object('next_due_in', pgflow.next_due_in(), 'next_call_in', pgflow.next_call_in()) from pgflow.settle_and_claim(
    settle_and_claim.results, settle_and_claim.flow_slugs, settle_and_claim.quantity, settle_and_claim.worker_id,
    lease => settle_and_claim.lease, inline_limit => settle_and_claim.inline_limit
  ) s
$$;
comment on function pgflow_worker.settle_and_claim is
  'Settles a batch of results and claims the next tasks: {"stale": […], "held": […], "tasks": […], "next_due_in": …, "next_call_in": …}; these say in how many seconds to call tick and call_functions.';

create function pgflow_worker.tick(quantity int default 1000)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('settled', t.settled, 'next_due_in', pgflow.next_due_in()) from pgflow.settle_due(tick.quantity) t (settled)
$$;
comment on function pgflow_worker.tick is
  'Settles waits and sleeps that are due: {"settled": …, "next_due_in": …}; next_due_in says in how many seconds to call it again.';

create function pgflow_worker.call_functions(quantity int default 1)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('settled', t.called, 'next_due_in', pgflow.next_call_in())
  from pgflow.call_functions(call_functions.quantity) t (called)
$$;
comment on function pgflow_worker.call_functions is
  'Calls functions of SQL steps that are due: {"settled": …, "next_due_in": …}; next_due_in says in how many seconds to call it again.';

create function pgflow_worker.heartbeat(worker_id uuid, tasks jsonb default '[]', lease int default 30)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(t), '[]') from pgflow.heartbeat(heartbeat.worker_id, heartbeat.tasks, heartbeat.lease) t
$$;
comment on function pgflow_worker.heartbeat is
  'Extends the leases of a worker''s tasks; tells which are still its own.';

create function pgflow_worker.hand_back(tasks jsonb)
returns int
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.hand_back(hand_back.tasks)
$$;
comment on function pgflow_worker.hand_back is 'Gives claimed tasks back at once.';

create function pgflow_worker.report_progress(reports jsonb)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.report_progress(report_progress.reports)
$$;
comment on function pgflow_worker.report_progress is 'Keeps how far handlers are.';

create function pgflow_worker.fetch_value(run_id uuid, name text, version text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.fetch_value(fetch_value.run_id, fetch_value.name, fetch_value.version)
$$;
comment on function pgflow_worker.fetch_value is 'A value that a claim left out of an input.';

create function pgflow_worker.keep_result(
  run_id uuid, step_slug text, task_index int, attempt int, name text, value jsonb
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.keep_result(
    keep_result.run_id, keep_result.step_slug, keep_result.task_index, keep_result.attempt, keep_result.name, keep_result.value
  )
$$;
comment on function pgflow_worker.keep_result is
  'Keeps a result of a task by a name, unless one is kept already; answers with the one that is kept.';

create function pgflow_worker.kept_results_of(run_id uuid, step_slug text, task_index int)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.kept_results_of(kept_results_of.run_id, kept_results_of.step_slug, kept_results_of.task_index)
$$;
comment on function pgflow_worker.kept_results_of is 'The kept results of a task, by their names.';

create function pgflow_worker.stop_worker(worker_id uuid)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.stop_worker(stop_worker.worker_id)
$$;
comment on function pgflow_worker.stop_worker is 'Notes that a worker has stopped.';
