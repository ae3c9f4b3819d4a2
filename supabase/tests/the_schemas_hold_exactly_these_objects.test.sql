begin;
select plan(7);

select set_eq(
  $$ select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('pgflow', 'pgflow_public', 'pgflow_worker') $$,
  array[
    'pgflow.deps',
    'pgflow.flow_aliases',
    'pgflow.flows',
    'pgflow.run_events',
    'pgflow.run_keys',
    'pgflow.run_watches',
    'pgflow.runs',
    'pgflow.step_states',
    'pgflow.step_tasks',
    'pgflow.steps',
    'pgflow.workers'
  ],
  'tables'
);

select set_eq(
  $$ select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('pgflow', 'pgflow_public', 'pgflow_worker') and c.relkind not in ('r', 'i', 'c') $$,
  array[
    'pgflow.flow_versions',
    'pgflow.last_repair',
    'pgflow.run_event_records',
    'pgflow.step_inputs', 'pgflow.step_options'
  ],
  'views, one sequence, and no other relation'
);

select set_eq(
  $$ select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('pgflow', 'pgflow_public', 'pgflow_worker') and c.relkind = 'c' $$,
  array[
    'pgflow.flow_definition',
    'pgflow.message',
    'pgflow.run_request',
    'pgflow.settled_task',
    'pgflow.step_change',
    'pgflow.step_definition',
    'pgflow.step_key',
    'pgflow.step_task_record',
    'pgflow.task_result'
  ],
  'types'
);

select set_eq(
  $$ select format('%s.%s(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
     from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where n.nspname = 'pgflow' $$,
  array[
    'pgflow.add_step(flow_slug text, step_slug text, deps_slugs text[], max_attempts integer, base_delay numeric, timeout integer, start_delay integer, step_type text, map_source text, map_path text, run_if jsonb, run_unless jsonb, when_unmet text, when_exhausted text)',
    'pgflow.add_step(flow_slug text, step_slug text, max_attempts integer, base_delay numeric, timeout integer, start_delay integer, step_type text, map_source text, map_path text, run_if jsonb, run_unless jsonb, when_unmet text, when_exhausted text)',
    'pgflow.advance(changes pgflow.step_change[], as_of timestamp with time zone, started pgflow.step_key[], delay integer)',
    'pgflow.advance_runs(changes pgflow.step_change[], as_of timestamp with time zone)',
    'pgflow.archive_messages(queue_name text, msg_ids bigint[])',
    'pgflow.assert_are_cursors(cursors jsonb)',
    'pgflow.assert_can_access_run(run_id uuid, action text)',
    'pgflow.assert_can_start(flow pgflow.flows, requests pgflow.run_request[], metadata jsonb, delay integer)',
    'pgflow.assert_fits(flow pgflow.flows, inputs jsonb)',
    'pgflow.assert_may_start(flow_slug text, inputs jsonb, idempotency_keys text[], group_id uuid)',
    'pgflow.assert_new_step(wanted pgflow.steps, wanted_deps text[])',
    'pgflow.assert_new_version(wanted pgflow.flow_definition)',
    'pgflow.assert_same_shape(flow pgflow.flows, definition jsonb)',
    'pgflow.assert_same_step(existing pgflow.steps, wanted pgflow.steps, wanted_deps text[])',
    'pgflow.assert_same_version(flow pgflow.flows, wanted pgflow.flow_definition)',
    'pgflow.assert_valid_definition(definition jsonb)',
    'pgflow.assert_valid_inputs(flow pgflow.flows, inputs jsonb[])',
    'pgflow.assert_valid_slug(slug text)',
    'pgflow.calculate_retry_delay(base_delay numeric, attempts_count integer)',
    'pgflow.caller_is_service()',
    'pgflow.caller_role()',
    'pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text)',
    'pgflow.can_read_topic(topic text)',
    'pgflow.can_start_in_group(group_id uuid)',
    'pgflow.cancel_run(run_id uuid, reason text)',
    'pgflow.cascade_skips(changes pgflow.step_change[])',
    'pgflow.cascading_skips(run_id uuid)',
    'pgflow.change_steps(changes pgflow.step_change[], as_of timestamp with time zone, OUT started pgflow.step_key[], OUT ready pgflow.step_key[])',
    'pgflow.changes_of(settled pgflow.settled_task[])',
    'pgflow.claim_tasks(flow_slugs text[], quantity integer, worker_id uuid, lease integer, inline_limit integer)',
    'pgflow.client_cancel_run(run_id uuid, reason text)',
    'pgflow.client_get_run(run_id uuid, watch text)',
    'pgflow.client_get_run_events(run_id uuid, after bigint, watch text)',
    'pgflow.client_list_runs(flow_slug text, status text, metadata jsonb, owner_id uuid, before uuid, quantity integer, group_id uuid, watch text)',
    'pgflow.client_retry_run(run_id uuid)',
    'pgflow.client_start_flow(flow_slug text, input jsonb, idempotency_key text, metadata jsonb, watch text, delay integer, group_id uuid)',
    'pgflow.client_sync(cursors jsonb, watch text)',
    'pgflow.client_start_flows(flow_slug text, inputs jsonb, idempotency_keys text[], metadata jsonb, watch text, delay integer, group_id uuid)',
    'pgflow.close_tasks(run_ids uuid[], skipped pgflow.step_key[])',
    'pgflow.complete_task(run_id uuid, step_slug text, task_index integer, output jsonb)',
    'pgflow.create_flow(flow_slug text, max_attempts integer, base_delay numeric, timeout integer, start_role text, broadcast text)',
    'pgflow.create_other_tasks(steps pgflow.step_key[], as_of timestamp with time zone, delay integer)',
    'pgflow.create_queue(queue_name text)',
    'pgflow.create_tasks(steps pgflow.step_key[], as_of timestamp with time zone, delay integer)',
    'pgflow.create_version(wanted pgflow.flow_definition)',
    'pgflow.current_user_id()',
    'pgflow.decide(ready pgflow.step_key[])',
    'pgflow.delete_flow(flow_slug text)',
    'pgflow.due_queues(queues text[])',
    'pgflow.end_dead_tasks(messages pgflow.message[])',
    'pgflow.existing_run(flow pgflow.flows, request pgflow.run_request, owner_id uuid, group_id uuid, metadata jsonb, delay integer)',
    'pgflow.extend_leases(tasks jsonb, lease integer)',
    'pgflow.fail_task(run_id uuid, step_slug text, task_index integer, error_message text)',
    'pgflow.fetch_value(run_id uuid, name text, version text)',
    'pgflow.flow_definition(flow_slug text)',
    'pgflow.flow_shape(definition jsonb)',
    'pgflow.flows_to_ask(flow_slugs text[], settled uuid[], worker_id uuid)',
    'pgflow.forget_owner(owner_id uuid, quantity integer)',
    'pgflow.hand_back(tasks jsonb)',
    'pgflow.heartbeat(worker_id uuid, tasks jsonb, lease integer)',
    'pgflow.lock_flow(name text)',
    'pgflow.hide_messages(queue_name text, msg_ids bigint[], until timestamp with time zone[])',
    'pgflow.is_readable(value text, type regtype)',
    'pgflow.is_unattended()',
    'pgflow.is_valid_slug(slug text)',
    'pgflow.store_errors(results jsonb, applied bigint[])',
    'pgflow.key_problem(object jsonb, kinds jsonb)',
    'pgflow.located_schema_errors(validator regprocedure, schema jsonb, value jsonb, root jsonb, path text)',
    'pgflow.keep_worker_awake(every text)',
    'pgflow.lock_definition(alias text)',
    'pgflow.lock_runs(run_ids uuid[], wait boolean)',
    'pgflow.locked_run(run_id uuid)',
    'pgflow.make_queue(queue_name text)',
    'pgflow.maintain(keep_runs interval, keep_archive interval, budget interval)',
    'pgflow.map_output(run_id uuid, step_slug text)',
    'pgflow.move_alias(alias text, flow_slug text)',
    'pgflow.messages_of_tasks(queue_name text, msg_ids bigint[], read_cts integer[], run_ids text[], step_slugs text[], task_indexes text[])',
    'pgflow.messages_within(messages pgflow.message[], bytes bigint, inline_limit integer)',
    'pgflow.new_run_ids(quantity integer, at timestamp with time zone)',
    'pgflow.newest_version(name text)',
    'pgflow.note_worker(worker_id uuid, is_waiting boolean)',
    'pgflow.may_start(flow_slug text, owner_id uuid, quantity integer)',
    'pgflow.missing_to_wake()',
    'pgflow.now()',
    'pgflow.parsed_results(results jsonb)',
    'pgflow.poll_for_tasks(queue_name text, vt integer, qty integer, max_poll_seconds integer, poll_interval_ms integer)',
    'pgflow.prune_archives(older_than interval, quantity integer)',
    'pgflow.prune_runs(older_than interval, quantity integer)',
    'pgflow.queue_name_for(flow_slug text)',
    'pgflow.raise_blocked(flow_slug text, alias text)',
    'pgflow.read_messages(flow_slugs text[], quantity integer, lease integer)',
    'pgflow.read_queue(queue_name text, quantity integer, lease integer)',
    'pgflow.register_flow(definition jsonb)',
    'pgflow.register_worker(worker_id uuid, name text, flow_slugs text[])',
    'pgflow.release_messages(settled pgflow.settled_task[])',
    'pgflow.repair(OUT queues bigint, OUT messages bigint)',
    'pgflow.replace_messages(queue_name text, retried pgflow.settled_task[])',
    'pgflow.report_progress(reports jsonb)',
    'pgflow.resend_messages(flow_slugs text[])',
    'pgflow.resend_to_queue(queue_name text, run_ids uuid[], step_slugs text[], task_indexes integer[])',
    'pgflow.retry_run(run_id uuid)',
    'pgflow.run_record(run pgflow.runs)',
    'pgflow.schema_errors(schema jsonb, value jsonb)',
    'pgflow.schema_of_itself(schema jsonb)',
    'pgflow.schema_version()',
    'pgflow.send_messages(queue_name text, messages jsonb[], delay integer)',
    'pgflow.settle(results pgflow.task_result[], wait boolean)',
    'pgflow.settle_and_claim(results jsonb, flow_slugs text[], quantity integer, worker_id uuid, lease integer, inline_limit integer, waiting boolean, OUT stale jsonb, OUT held jsonb, OUT tasks jsonb)',
    'pgflow.apply_result(result pgflow.task_result)',
    'pgflow.settle_tasks(results jsonb, wait boolean)',
    'pgflow.record_results(run_ids uuid[], results pgflow.task_result[], as_of timestamp with time zone)',
    'pgflow.shape_changes(before jsonb, after jsonb)',
    'pgflow.snapshot(run_id uuid)',
    'pgflow.start_flow(flow_slug text, input jsonb, run_id uuid, idempotency_key text, owner_id uuid, metadata jsonb, delay integer, group_id uuid)',
    'pgflow.start_flows(flow_slug text, inputs jsonb, idempotency_keys text[], owner_id uuid, metadata jsonb, delay integer, group_id uuid)',
    'pgflow.start_runs(flow_slug text, requests pgflow.run_request[], owner_id uuid, group_id uuid, metadata jsonb, delay integer)',
    'pgflow.start_steps(flow_slug text, run_ids uuid[], as_of timestamp with time zone, delay integer)',
    'pgflow.begin_attempts(messages pgflow.message[], worker_id uuid, as_of timestamp with time zone, inline_limit integer)',
    'pgflow.steps_problem(steps jsonb)',
    'pgflow.stop_worker(worker_id uuid)',
    'pgflow.tg_plans__after()',
    'pgflow.tg_plans__before()',
    'pgflow.tg_run_events__after_insert()',
    'pgflow.tg_runs__after_insert()',
    'pgflow.tg_runs__after_update()',
    'pgflow.tg_step_states__after_insert()',
    'pgflow.tg_step_states__after_update()',
    'pgflow.update_options(wanted pgflow.flow_definition)',
    'pgflow.version_of(at timestamp with time zone)',
    'pgflow.wake_worker()',
    'pgflow.notify_workers(run_ids uuid[])',
    'pgflow.topic_of_caller(watch text)',
    'pgflow.watch_run(run_id uuid)',
    'pgflow.watch_runs(run_ids uuid[], topic text, waits boolean)',
    'pgflow.without_nulls(object jsonb)'
  ],
  'functions of the engine'
);

select set_eq(
  $$ select format('%s.%s(%s) -> %s', n.nspname, p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid))
     from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where n.nspname in ('pgflow_public', 'pgflow_worker') $$,
  array[
    'pgflow_public.cancel_run(run_id uuid, reason text DEFAULT NULL::text) -> jsonb',
    'pgflow_worker.fetch_value(run_id uuid, name text, version text) -> jsonb',
    'pgflow_public.forget_owner(owner_id uuid, quantity integer DEFAULT NULL::integer) -> bigint',
    'pgflow_public.get_run(run_id uuid, watch text DEFAULT NULL::text) -> jsonb',
    'pgflow_public.get_run_events(run_id uuid, after bigint DEFAULT 0, watch text DEFAULT NULL::text) -> jsonb',
    'pgflow_worker.hand_back(tasks jsonb) -> integer',
    'pgflow_worker.heartbeat(worker_id uuid, tasks jsonb DEFAULT ''[]''::jsonb, lease integer DEFAULT 30) -> jsonb',
    'pgflow_public.list_runs(flow_slug text DEFAULT NULL::text, status text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, owner_id uuid DEFAULT NULL::uuid, before uuid DEFAULT NULL::uuid, quantity integer DEFAULT 50, group_id uuid DEFAULT NULL::uuid, watch text DEFAULT NULL::text) -> jsonb',
    'pgflow_worker.register_flow(definition jsonb) -> void',
    'pgflow_worker.register_worker(worker_id uuid, name text, flow_slugs text[]) -> void',
    'pgflow_worker.report_progress(reports jsonb) -> jsonb',
    'pgflow_public.retry_run(run_id uuid) -> jsonb',
    'pgflow_public.schema_version() -> integer',
    'pgflow_public.start_flow(flow_slug text, input jsonb, idempotency_key text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, watch text DEFAULT NULL::text, delay integer DEFAULT 0, group_id uuid DEFAULT NULL::uuid) -> jsonb',
    'pgflow_public.start_flows(flow_slug text, inputs jsonb, idempotency_keys text[] DEFAULT NULL::text[], metadata jsonb DEFAULT NULL::jsonb, watch text DEFAULT NULL::text, delay integer DEFAULT 0, group_id uuid DEFAULT NULL::uuid) -> jsonb',
    'pgflow_public.sync(cursors jsonb, watch text DEFAULT NULL::text) -> jsonb',
    'pgflow_worker.settle_and_claim(results jsonb, flow_slugs text[], quantity integer, worker_id uuid, lease integer DEFAULT 30, inline_limit integer DEFAULT NULL::integer) -> jsonb',
    'pgflow_worker.schema_version() -> integer',
    'pgflow_worker.stop_worker(worker_id uuid) -> void'
  ],
  'functions that PostgREST exposes'
);

select set_eq(
  $$ select format('%s on %s: %s, %s', t.tgname, t.tgrelid::regclass, t.tgfoid::regproc,
       case when t.tgtype & 1 = 0 then 'statement' else 'row' end)
     from pg_trigger t
     join pg_class c on c.oid = t.tgrelid
     join pg_namespace n on n.oid = c.relnamespace
     where not t.tgisinternal and (n.nspname like 'pgflow%' or t.tgfoid::regproc::text like 'pgflow%') $$,
  array[
    '_000_plans on pgflow.run_events: pgflow.tg_plans__before, statement',
    '~plans on pgflow.run_events: pgflow.tg_plans__after, statement',
    '_000_plans on pgflow.runs: pgflow.tg_plans__before, statement',
    '~plans on pgflow.runs: pgflow.tg_plans__after, statement',
    '_000_plans on pgflow.step_states: pgflow.tg_plans__before, statement',
    '~plans on pgflow.step_states: pgflow.tg_plans__after, statement',
    '_000_plans on pgflow.step_tasks: pgflow.tg_plans__before, statement',
    '~plans on pgflow.step_tasks: pgflow.tg_plans__after, statement',
    '_900_broadcast on pgflow.run_events: pgflow.tg_run_events__after_insert, statement',
    '_900_events_of_insert on pgflow.runs: pgflow.tg_runs__after_insert, statement',
    '_900_events_of_insert on pgflow.step_states: pgflow.tg_step_states__after_insert, statement',
    '_900_events_of_update on pgflow.runs: pgflow.tg_runs__after_update, statement',
    '_900_events_of_update on pgflow.step_states: pgflow.tg_step_states__after_update, statement'
  ],
  'triggers'
);

select set_eq(
  $$ select format('%s on %s.%s for %s to %s', policyname, schemaname, tablename, lower(cmd), array_to_string(roles, ', '))
     from pg_policies where schemaname in ('pgflow', 'pgflow_public', 'pgflow_worker', 'realtime') $$,
  array[
    'closed on pgflow.deps for all to anon, authenticated',
    'closed on pgflow.flow_aliases for all to anon, authenticated',
    'closed on pgflow.flows for all to anon, authenticated',
    'closed on pgflow.run_keys for all to anon, authenticated',
    'closed on pgflow.run_watches for all to anon, authenticated',
    'closed on pgflow.step_tasks for all to anon, authenticated',
    'closed on pgflow.steps for all to anon, authenticated',
    'closed on pgflow.workers for all to anon, authenticated',
    'own_run_events on pgflow.run_events for select to authenticated',
    'own_runs on pgflow.runs for select to authenticated',
    'own_step_states on pgflow.step_states for select to authenticated',
    'pgflow_run_channels on realtime.messages for select to authenticated'
  ],
  'policies: one of ours on realtime.messages, to read; none to public, none to insert there'
);

select * from finish();
rollback;
