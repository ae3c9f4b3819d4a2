begin;
select plan(24);
set local pgflow.now = '2020-01-01 00:00+00';

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.everything() returns jsonb
return jsonb_build_array(
  (select jsonb_agg(r order by run_id) from pgflow.runs r), (select jsonb_agg(s order by run_id, step_slug) from pgflow.step_states s),
  (select jsonb_agg(t order by run_id, step_slug, task_index) from pgflow.step_tasks t), (select count(*) from pgflow.run_events)
);

select pgflow.create_flow('f', base_delay => 0);
select pgflow.add_step('f', 'done');
select pgflow.add_step('f', 'failing');
select pgflow.add_step('f', 'waiting');
select pgflow.add_step('f', 'each', step_type => 'map');
select pgflow.add_step('f', 'opt', run_if => '{"run": 1}', when_unmet => 'skip');
select pgflow.add_step('f', 'next', array['failing']);

-- Run 1 is cancelled while it has a step in every state, run 2 goes on.
select pgflow.start_flow('f', '[1, 2, 3]', run_id => pg_temp.run(1));
select pgflow.claim_tasks(array['f'], 2, gen_random_uuid());
select pgflow.complete_task(pg_temp.run(1), 'done', 0, '"kept"');
select pgflow.fail_task(pg_temp.run(1), 'failing', 0, 'boom');
select pgflow.complete_task(pg_temp.run(1), 'each', 1, '"item"');
select pgflow.start_flow('f', '[]', run_id => pg_temp.run(2));
set local pgflow.now = '2020-01-01 00:01+00';

create temp table last_event as select max(seq) as seq from pgflow.run_events where run_id = pg_temp.run(1);
create temp table answer as select * from pgflow.cancel_run(pg_temp.run(1), 'no longer needed');
select results_eq(
  'select run_id, status, error, cancelled_at, output, failed_at, completed_at from answer',
  $$ values (pg_temp.run(1), 'cancelled', 'no longer needed', '2020-01-01 00:01+00'::timestamptz,
             null::jsonb, null::timestamptz, null::timestamptz) $$,
  'answers with the run, whose error is the reason'
);
select results_eq('table answer', 'select * from pgflow.runs where run_id = pg_temp.run(1)', 'which is its row');
select results_eq(
  $$ select ss.step_slug, ss.status, ss.output, ss.error from pgflow.step_states ss join pgflow.steps s using (flow_slug, step_slug)
     where ss.run_id = pg_temp.run(1) order by s.step_index $$,
  $$ values ('done', 'completed', '"kept"'::jsonb, null), ('failing', 'cancelled', null, 'boom'), ('waiting', 'cancelled', null, null),
            ('each', 'cancelled', null, null), ('opt', 'skipped', null, null), ('next', 'cancelled', null, null) $$,
  'open steps are cancelled, finished and skipped ones stay'
);
select results_eq(
  $$ select step_slug, task_index, status, output from pgflow.step_tasks where run_id = pg_temp.run(1) order by 1, 2 $$,
  $$ values ('done', 0, 'completed', null), ('each', 0, 'cancelled', null), ('each', 1, 'completed', '"item"'::jsonb),
            ('each', 2, 'cancelled', null), ('failing', 0, 'cancelled', null), ('waiting', 0, 'cancelled', null) $$,
  'so are open tasks'
);
select is_empty(
  $$ select * from pgmq.q_f q where q.message ->> 'run_id' = pg_temp.run(1)::text $$, 'no message of it is left'
);
select is(
  (select count(*) from pgmq.a_f a where a.message ->> 'run_id' = pg_temp.run(1)::text), 6::bigint, 'they are archived'
);
select results_eq(
  $$ select type, step_slug, at, data from pgflow.run_events e, last_event l where e.run_id = pg_temp.run(1) and e.seq > l.seq order by e.seq $$,
  $$ values
    ('step:cancelled', 'failing', '2020-01-01 00:01+00'::timestamptz, null::jsonb), ('step:cancelled', 'waiting', '2020-01-01 00:01+00', null),
    ('step:cancelled', 'each', '2020-01-01 00:01+00', null), ('step:cancelled', 'next', '2020-01-01 00:01+00', null),
    ('run:cancelled', null, '2020-01-01 00:01+00', '{"error": "no longer needed"}') $$,
  'the log says what was cancelled, the run last'
);
select results_eq(
  $$ select status, (select count(*) from pgmq.q_f q where q.message ->> 'run_id' = pg_temp.run(2)::text) from pgflow.runs where run_id = pg_temp.run(2) $$,
  $$ values ('started', 3::bigint) $$, 'other runs go on'
);

-- Afterwards
create temp table before as select pg_temp.everything() as everything;
set local pgflow.now = '2020-01-01 00:02+00';
select results_eq(
  $$ select * from pgflow.cancel_run(pg_temp.run(1), 'again') $$, 'table answer', 'a second call answers with the run as it is'
);
select results_eq($$ select * from pgflow.cancel_run(pg_temp.run(1)) $$, 'table answer', 'whatever its reason');
select is(
  (select array_agg(active) from pgflow.extend_leases(
    jsonb_build_array(jsonb_build_object('run_id', pg_temp.run(1), 'step_slug', 'failing', 'task_index', 0, 'attempt', 1))
  )), array[false], 'a heartbeat tells the worker to stop'
);
select is(
  (select array_agg(applied) from pgflow.settle_tasks(
    jsonb_build_array(jsonb_build_object('run_id', pg_temp.run(1), 'step_slug', 'failing', 'task_index', 0, 'attempt', 1, 'output', 1))
  )), array[false], 'its result is stale'
);
select is_empty($$ select * from pgflow.complete_task(pg_temp.run(1), 'waiting', 0, '1') $$, 'nor can it be completed by hand');
select is_empty($$ select * from pgflow.fail_task(pg_temp.run(1), 'waiting', 0, 'x') $$, 'nor failed');
select is(pg_temp.everything(), (select everything from before), 'none of which changes anything');

-- What cannot be cancelled
select pgflow.create_flow('g', max_attempts => 1), pgflow.add_step('g', 'a');
select pgflow.start_flow('g', '1', run_id => pg_temp.run(n)) from generate_series(3, 5) n;
select pgflow.claim_tasks(array['g'], 100, gen_random_uuid());
select pgflow.complete_task(pg_temp.run(3), 'a', 0, '1'), pgflow.fail_task(pg_temp.run(4), 'a', 0, 'boom');
create temp table ended as select pg_temp.everything() as everything;
select throws_ok(
  $$ select pgflow.cancel_run(pg_temp.run(3)) $$, 'PT409',
  'run 10000000-0000-4000-8000-000000000003 cannot be cancelled: it has completed', 'a completed run'
);
select throws_ok(
  $$ select pgflow.cancel_run(pg_temp.run(4)) $$, 'PT409',
  'run 10000000-0000-4000-8000-000000000004 cannot be cancelled: it has failed', 'a failed run'
);
select throws_ok(
  $$ select pgflow.cancel_run(pg_temp.run(9)) $$, 'PT404', 'run 10000000-0000-4000-8000-000000000009 does not exist', 'no run'
);
select throws_ok($$ select pgflow.cancel_run(null) $$, 'PT404', 'run null does not exist', 'null');
select is(pg_temp.everything(), (select everything from ended), 'a refused call changes nothing');

-- Without a reason
select is((select error from pgflow.cancel_run(pg_temp.run(5))), null, 'a reason is not needed');
select is(
  (select data from pgflow.run_events where run_id = pg_temp.run(5) and type = 'run:cancelled'), '{"error": null}'::jsonb, 'the event has none'
);
select is_empty('select * from pgmq.q_g', 'the queue is empty');

-- With messages that are gone
select pgflow.start_flow('g', '1', run_id => pg_temp.run(6));
delete from pgmq.q_g;
select lives_ok($$ select pgflow.cancel_run(pg_temp.run(6)) $$, 'a message that is missing does not matter');

select * from finish();
rollback;
