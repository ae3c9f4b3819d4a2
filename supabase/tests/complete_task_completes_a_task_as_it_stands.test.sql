begin;
select plan(15);
set local pgflow.now = '2030-01-01 00:00+00';

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

select pgflow.create_flow('f');
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'b', deps_slugs => array['a']);
select pgflow.start_flow('f', '1', run_id => pg_temp.run());

-- Queued
create temp table answer as
select * from pgflow.complete_task(run_id => pg_temp.run(), step_slug => 'a', task_index => 0, output => '{"y": 1}');
select results_eq(
  'table answer', $$ select * from pgflow.step_tasks where run_id = pg_temp.run() and step_slug = 'a' $$,
  'answers with the task''s row'
);
select is(
  (select (status, attempts_count, completed_at)::text from answer), '(completed,0,"2030-01-01 00:00:00+00")',
  'a queued task can be completed by hand'
);
select results_eq(
  $$ select status, output, completed_at, remaining_tasks from pgflow.step_states where run_id = pg_temp.run() and step_slug = 'a' $$,
  $$ values ('completed', '{"y": 1}'::jsonb, '2030-01-01 00:00+00'::timestamptz, 0) $$,
  'its step is completed'
);
select results_eq(
  $$ select step_slug, status from pgflow.step_tasks where run_id = pg_temp.run() order by step_slug $$,
  $$ values ('a', 'completed'), ('b', 'queued') $$,
  'the next one has started'
);
select is(
  (select array_agg(message ->> 'step_slug') from pgmq.q_f), array['b'], 'its message took the place of the first'
);

-- Again
select is_empty($$ select * from pgflow.complete_task(pg_temp.run(), 'a', 0, '2') $$, 'a second call gives no row');
select is(
  (select output from pgflow.step_states where run_id = pg_temp.run() and step_slug = 'a'), '{"y": 1}'::jsonb, 'and changes nothing'
);

-- Started, whatever the attempt
select pgflow.claim_tasks(array['f'], 10, gen_random_uuid());
update pgmq.q_f set vt = clock_timestamp() - interval '1 second';
select pgflow.claim_tasks(array['f'], 10, gen_random_uuid());
select is(
  (select (status, attempts_count)::text from pgflow.complete_task(pg_temp.run(), 'b', 0, 'false')), '(completed,2)',
  'a started task is completed as it stands'
);
select results_eq(
  $$ select status, output from pgflow.runs where run_id = pg_temp.run() $$,
  $$ values ('completed', '{"b": false}'::jsonb) $$,
  'the last step completes the run'
);
select is((select count(*) from pgmq.q_f), 0::bigint, 'whose queue is empty');

-- SQL's null is JSON's
select pgflow.start_flow('f', '1', run_id => pg_temp.run(2));
select pgflow.complete_task(pg_temp.run(2), 'a', 0, null);
select is(
  (select output from pgflow.step_states where run_id = pg_temp.run(2) and step_slug = 'a'), 'null'::jsonb,
  'an output that is null is the JSON value null'
);

-- Wrong state
select is_empty($$ select * from pgflow.complete_task(pg_temp.run(9), 'a', 0, '1') $$, 'no row for an unknown run');
select is_empty($$ select * from pgflow.complete_task(pg_temp.run(2), 'nope', 0, '1') $$, 'nor for an unknown step');
select is_empty($$ select * from pgflow.complete_task(pg_temp.run(2), 'b', 1, '1') $$, 'nor for an unknown task');
update pgflow.runs set status = 'cancelled', cancelled_at = pgflow.now() where run_id = pg_temp.run(2);
select is_empty($$ select * from pgflow.complete_task(pg_temp.run(2), 'b', 0, '1') $$, 'nor in a run that has ended');

select * from finish();
rollback;
