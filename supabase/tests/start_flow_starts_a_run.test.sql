begin;
select plan(26);
set local pgflow.now = '2030-01-01 00:00+00';

create function pg_temp.run() returns uuid return uuid '10000000-0000-4000-8000-000000000001';

select pgflow.create_flow('f');
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'b', start_delay => 100);
select pgflow.add_step('f', 'c', deps_slugs => array['a', 'b']);

create temp table answer as
select * from pgflow.start_flow('f', '{"x": 1}', run_id => pg_temp.run(), metadata => '{"from": "test"}');

select results_eq(
  $$ select run_id, flow_slug, status, input, metadata, started_at from answer $$,
  $$ values (pg_temp.run(), 'f', 'started', '{"x": 1}'::jsonb, '{"from": "test"}'::jsonb, '2030-01-01 00:00+00'::timestamptz) $$,
  'answers with the run'
);
select results_eq('table answer', $$ select * from pgflow.runs where flow_slug = 'f' $$, 'which is its row');
select is(
  (select to_jsonb(a) - array['run_id', 'flow_slug', 'status', 'input', 'metadata', 'started_at'] from answer a),
  '{"output": null, "error": null, "owner_id": null, "priority": "normal", "waits_for": null, "group_id": null, "idempotency_key": null, "parent_run_id": null,
    "parent_step_slug": null, "parent_task_index": null, "depth": 0, "trace_parent": null, "undoes": null, "undo": null,
    "completed_at": null, "failed_at": null, "cancelled_at": null}'::jsonb,
  'where everything else is null or 0'
);
select results_eq(
  $$ select ss.step_slug, ss.status, ss.remaining_deps, ss.initial_tasks, ss.remaining_tasks, ss.started_at is null
     from pgflow.step_states ss join pgflow.steps s using (flow_slug, step_slug)
     where ss.run_id = pg_temp.run() order by s.step_index $$,
  $$ values ('a', 'started', 0, 1, 1, false), ('b', 'started', 0, 1, 1, false), ('c', 'created', 2, null::int, null::int, true) $$,
  'each step has a state; root steps have started'
);
select results_eq(
  $$ select step_slug, task_index, status, attempts_count, queued_at from pgflow.step_tasks
     where run_id = pg_temp.run() order by step_slug $$,
  $$ values ('a', 0, 'queued', 0, '2030-01-01 00:00+00'::timestamptz), ('b', 0, 'queued', 0, '2030-01-01 00:00+00') $$,
  'root steps have a task'
);
select results_eq(
  $$ select q.message from pgflow.step_tasks t join pgmq.q_f q on q.msg_id = t.message_id
     where t.run_id = pg_temp.run() order by t.step_slug $$,
  $$ select jsonb_build_object('flow_slug', 'f', 'run_id', pg_temp.run(), 'step_slug', step, 'task_index', 0)
     from unnest(array['a', 'b']) step $$,
  'each task has a message, which carries ids only'
);
select is((select count(*) from pgmq.q_f), 2::bigint, 'and there is no other message');
select results_eq(
  $$ select q.vt > clock_timestamp() + interval '90 seconds' from pgflow.step_tasks t join pgmq.q_f q on q.msg_id = t.message_id
     where t.run_id = pg_temp.run() order by t.step_slug $$,
  array[false, true],
  'a step''s start delay hides its message'
);
select is_empty($$ select * from pgflow.run_watches $$, 'nobody watches the run yet');

select pgflow.start_flow('f', '{}', run_id => '10000000-0000-4000-8000-000000000002', delay => 1000);
select results_eq(
  $$ select q.vt > clock_timestamp() + interval '990 seconds', q.vt > clock_timestamp() + interval '1090 seconds'
     from pgflow.step_tasks t join pgmq.q_f q on q.msg_id = t.message_id
     where t.run_id = '10000000-0000-4000-8000-000000000002' order by t.step_slug $$,
  $$ values (true, false), (true, true) $$,
  'a run''s delay is added to its steps'''
);

-- Any JSON value is an input.
create temp table inputs (input jsonb);
insert into inputs values ('null'), ('false'), ('0'), ('""'), ('"123"'), ('[]'), ('{}');
select results_eq(
  $$ select r.input from inputs i cross join lateral pgflow.start_flow('f', i.input) r $$,
  'table inputs',
  'null, false, 0, "", a number in a string, [] and {} are inputs as they are'
);

-- The owner
select is((select owner_id from pgflow.start_flow('f', '{}')), null, 'SQL owns nothing');
select is(
  (select owner_id from pgflow.start_flow('f', '{}', owner_id => '20000000-0000-4000-8000-000000000002')),
  '20000000-0000-4000-8000-000000000002'::uuid, 'unless it names an owner'
);
set local request.jwt.claims = '{"sub": "20000000-0000-4000-8000-000000000001", "role": "authenticated"}';
select is(
  (select owner_id from pgflow.start_flow('f', '{}')),
  '20000000-0000-4000-8000-000000000001'::uuid, 'the signed-in user owns what they start'
);
select is(
  (select owner_id from pgflow.start_flow('f', '{}', owner_id => '20000000-0000-4000-8000-000000000002')),
  '20000000-0000-4000-8000-000000000002'::uuid, 'the one that is named comes first'
);
set local request.jwt.claims = '{"sub": "somebody@example.com"}';
select is((select owner_id from pgflow.start_flow('f', '{}')), null, 'a subject that is no uuid is no owner, and no error');
set local request.jwt.claims = '';

-- What makes no sense
select pgflow.create_flow('empty');
create temp table counts as select (select count(*) from pgflow.runs) as runs, (select count(*) from pgmq.q_f) as messages;
select throws_ok(
  $$ select pgflow.start_flow('nope', '{}') $$, 'PT404', 'flow "nope" does not exist', 'an unknown flow'
);
select throws_ok($$ select pgflow.start_flow('empty', '{}') $$, 'PT400', 'flow "empty" has no steps', 'a flow without steps');
select throws_ok(
  $$ select pgflow.start_flow('f', null) $$, 'PT400', 'the input for flow "f" is missing', 'no input'
);
select throws_ok($$ select pgflow.start_flow(null, '{}') $$, 'PT400', null, 'no flow');
select throws_ok($$ select pgflow.start_flow('f', '{}', delay => -1) $$, 'PT400', null, 'a delay below 0');
select throws_ok($$ select pgflow.start_flow('f', '{}', delay => null) $$, 'PT400', null, 'a delay that is null');
select results_eq(
  $$ select (select count(*) from pgflow.runs), (select count(*) from pgmq.q_f) $$, 'table counts',
  'a refused start leaves nothing behind'
);

-- The clock
select is(pgflow.now(), '2030-01-01 00:00+00'::timestamptz, 'the engine''s time is what pgflow.now says');
set local pgflow.now = '';
select ok(pgflow.now() between now() and clock_timestamp(), 'and the real time when it says nothing');
select isnt(pgflow.now(), pgflow.now(), 'which goes on within a transaction');

select * from finish();
rollback;
