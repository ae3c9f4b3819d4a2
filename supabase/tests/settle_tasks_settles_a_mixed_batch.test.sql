begin;
select plan(27);
set local pgflow.now = '2030-01-01 00:00+00';

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

-- Runs 1 to 3 of a flow with two root steps and a join, run 4 of another flow.
select pgflow.create_flow('f', base_delay => 5);
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'b');
select pgflow.add_step('f', 'c', deps_slugs => array['a', 'b']);
select pgflow.create_flow('g', max_attempts => 1), pgflow.add_step('g', 'only');
select pgflow.start_flow('f', '1', run_id => pg_temp.run(n)) from generate_series(1, 3) n;
select pgflow.start_flow('g', '1', run_id => pg_temp.run(4));
create temp table claimed as select * from pgflow.claim_tasks(array['f', 'g'], 100, gen_random_uuid());

create function pg_temp.result(n int, step text, attempt int, result jsonb) returns jsonb
return jsonb_build_object('run_id', pg_temp.run(n), 'step_slug', step, 'task_index', 0, 'attempt', attempt) || result;

create temp table answer as
select row_number() over () as n, s.* from pgflow.settle_tasks(jsonb_build_array(
  pg_temp.result(3, 'a', 1, '{"output": "later"}'),
  pg_temp.result(1, 'a', 1, '{"output": {"y": 1}}'),
  pg_temp.result(1, 'b', 1, '{"output": null}'),
  pg_temp.result(2, 'a', 1, '{"error": "boom"}'),
  pg_temp.result(2, 'b', 2, '{"output": "from an attempt to come"}'),
  pg_temp.result(4, 'only', 1, '{"error": "the end"}'),
  pg_temp.result(9, 'a', 1, '{"output": "of no run"}'),
  pg_temp.result(3, 'nope', 1, '{"output": "of no step"}'),
  pg_temp.result(3, 'c', 1, '{"output": "of a step that has not started"}')
)) s;
select columns_are('answer', array['n', 'run_id', 'step_slug', 'task_index', 'attempt', 'applied', 'held', 'problem']);
select results_eq(
  $$ select run_id, step_slug, task_index, attempt, applied from answer order by n $$,
  $$ values (pg_temp.run(3), 'a', 0, 1, true),
            (pg_temp.run(1), 'a', 0, 1, true),
            (pg_temp.run(1), 'b', 0, 1, true),
            (pg_temp.run(2), 'a', 0, 1, true),
            (pg_temp.run(2), 'b', 0, 2, false),
            (pg_temp.run(4), 'only', 0, 1, true),
            (pg_temp.run(9), 'a', 0, 1, false),
            (pg_temp.run(3), 'nope', 0, 1, false),
            (pg_temp.run(3), 'c', 0, 1, false) $$,
  'answers for each result, in order, whether it was applied'
);
select results_eq(
  $$ select run_id, status, (
       select count(*) from pgflow.step_states ss where ss.run_id = r.run_id and ss.status in ('created', 'started')
     ), error from pgflow.runs r order by run_id $$,
  $$ values (pg_temp.run(1), 'started', 1::bigint, null), (pg_temp.run(2), 'started', 3, null),
            (pg_temp.run(3), 'started', 2, null), (pg_temp.run(4), 'failed', 0, 'the end') $$,
  'each run goes its own way'
);
select results_eq(
  $$ select run_id, step_slug, status, output, error, retries from pgflow.step_states order by run_id, step_slug $$,
  $$ values
    (pg_temp.run(1), 'a', 'completed', '{"y": 1}'::jsonb, null, 0),
    (pg_temp.run(1), 'b', 'completed', 'null', null, 0),
    (pg_temp.run(1), 'c', 'started', null, null, 0),
    (pg_temp.run(2), 'a', 'started', null, 'boom', 1),
    (pg_temp.run(2), 'b', 'started', null, null, 0),
    (pg_temp.run(2), 'c', 'created', null, null, 0),
    (pg_temp.run(3), 'a', 'completed', '"later"', null, 0),
    (pg_temp.run(3), 'b', 'started', null, null, 0),
    (pg_temp.run(3), 'c', 'created', null, null, 0),
    (pg_temp.run(4), 'only', 'failed', null, 'the end', 0) $$,
  'and each step'
);
select results_eq(
  $$ select run_id, step_slug, remaining_deps, remaining_tasks from pgflow.step_states where step_slug = 'c' order by run_id $$,
  $$ values (pg_temp.run(1), 'c', 0, 1), (pg_temp.run(2), 'c', 2, null), (pg_temp.run(3), 'c', 1, null) $$,
  'dependents count what they wait for'
);
select results_eq(
  $$ select run_id, step_slug, status, attempts_count, error_message from pgflow.step_tasks order by run_id, step_slug $$,
  $$ values
    (pg_temp.run(1), 'a', 'completed', 1, null),
    (pg_temp.run(1), 'b', 'completed', 1, null),
    (pg_temp.run(1), 'c', 'queued', 0, null),
    (pg_temp.run(2), 'a', 'queued', 1, 'boom'),
    (pg_temp.run(2), 'b', 'started', 1, null),
    (pg_temp.run(3), 'a', 'completed', 1, null),
    (pg_temp.run(3), 'b', 'started', 1, null),
    (pg_temp.run(4), 'only', 'failed', 1, 'the end') $$,
  'and each task'
);
select set_eq(
  $$ select t.run_id, t.step_slug from pgflow.step_tasks t join pgmq.a_f q on q.msg_id = t.message_id where t.flow_slug = 'f' $$,
  $$ values (pg_temp.run(1), 'a'), (pg_temp.run(1), 'b'), (pg_temp.run(3), 'a') $$,
  'messages of settled tasks are archived'
);
select set_eq(
  $$ select t.run_id, t.step_slug from pgflow.step_tasks t join pgmq.q_f q on q.msg_id = t.message_id where t.flow_slug = 'f' $$,
  $$ values (pg_temp.run(1), 'c'), (pg_temp.run(2), 'a'), (pg_temp.run(2), 'b'), (pg_temp.run(3), 'b') $$,
  'the others are still there'
);
select is((select count(*) from pgmq.q_g), 0::bigint, 'in every flow');
select is((select count(*) from pgmq.a_g), 1::bigint, 'of the batch');

-- The second time
create temp table before as
select (select jsonb_agg(r order by run_id) from pgflow.runs r) as runs,
       (select jsonb_agg(s order by run_id, step_slug) from pgflow.step_states s) as states,
       (select jsonb_agg(t order by run_id, step_slug) from pgflow.step_tasks t) as tasks,
       (select count(*) from pgflow.run_events) as events;
create function pg_temp.nothing_changed() returns boolean language sql as $$
  select (select jsonb_agg(r order by run_id) from pgflow.runs r) = b.runs
     and (select jsonb_agg(s order by run_id, step_slug) from pgflow.step_states s) = b.states
     and (select jsonb_agg(t order by run_id, step_slug) from pgflow.step_tasks t) = b.tasks
     and (select count(*) from pgflow.run_events) = b.events
  from before b
$$;
select results_eq(
  $$ select applied from pgflow.settle_tasks(jsonb_build_array(
       pg_temp.result(1, 'a', 1, '{"output": 2}'),
       pg_temp.result(1, 'b', 1, '{"error": "late"}'),
       pg_temp.result(2, 'a', 1, '{"output": "of the attempt that failed"}'),
       pg_temp.result(2, 'a', 0, '{"output": "of no attempt"}'),
       pg_temp.result(4, 'only', 1, '{"output": "too late"}'),
       pg_temp.result(4, 'only', 2, '{"output": "too late"}')
     )) $$,
  array[false, false, false, false, false, false],
  'what is settled, or is not this attempt''s any more, is stale'
);
select ok(pg_temp.nothing_changed(), 'and changes nothing');
select is_empty($$ select * from pgflow.settle_tasks('[]') $$, 'an empty batch answers with nothing');
select is_empty($$ select * from pgflow.settle_tasks(null) $$, 'so does none');
select ok(pg_temp.nothing_changed(), 'and changes nothing either');

-- A task of another run under this name
select results_eq(
  $$ select applied from pgflow.settle_tasks(jsonb_build_array(pg_temp.result(4, 'a', 1, '{"output": 1}'))) $$,
  array[false],
  'a step that the run does not have is settled nowhere'
);

-- One task several times in one batch
select results_eq(
  $$ select applied from pgflow.settle_tasks(jsonb_build_array(
       pg_temp.result(3, 'b', 1, '{"output": "first"}'),
       pg_temp.result(3, 'b', 1, '{"error": "second"}'),
       pg_temp.result(3, 'b', 1, '{"output": "third"}')
     )) $$,
  array[true, false, false],
  'of one task''s results the first is applied'
);
select results_eq(
  $$ select output, retries from pgflow.step_states where run_id = pg_temp.run(3) and step_slug = 'b' $$,
  $$ values ('"first"'::jsonb, 0) $$,
  'and only that'
);

-- A worker that claimed its own lost task again may send both attempts' results together.
update pgmq.q_f set vt = clock_timestamp() - interval '1 second'
where msg_id = (select message_id from pgflow.step_tasks where run_id = pg_temp.run(2) and step_slug = 'b');
select is(
  (select array_agg(attempt) from pgflow.claim_tasks(array['f'], 100, gen_random_uuid()) c where c.step_slug = 'b'), array[2],
  'a task is claimed again'
);
select results_eq(
  $$ select attempt, applied from pgflow.settle_tasks(jsonb_build_array(
       pg_temp.result(2, 'b', 1, '{"output": "stale"}'),
       pg_temp.result(2, 'b', 2, '{"output": "current"}'),
       pg_temp.result(2, 'b', 1, '{"output": "stale"}')
     )) $$,
  $$ values (1, false), (2, true), (1, false) $$,
  'a stale result does not hide the current one'
);
select is(
  (select output from pgflow.step_states where run_id = pg_temp.run(2) and step_slug = 'b'), '"current"'::jsonb, 'which is kept'
);

-- Results that complete a step and fail its run, together
select pgflow.start_flow('f', '1', run_id => pg_temp.run(5));
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
select results_eq(
  $$ select applied from pgflow.settle_tasks(jsonb_build_array(
       pg_temp.result(5, 'a', 1, '{"output": 1}'), pg_temp.result(5, 'b', 1, '{"error": "boom", "permanent": true}')
     )) $$,
  array[true, true],
  'both are applied'
);
select results_eq(
  $$ select step_slug, status from pgflow.step_states where run_id = pg_temp.run(5) order by step_slug $$,
  $$ values ('a', 'completed'), ('b', 'failed'), ('c', 'cancelled') $$,
  'the finished step keeps its result, the failed one fails the rest'
);
select is((select status from pgflow.runs where run_id = pg_temp.run(5)), 'failed', 'and the run');

-- What cannot be read is reported, and settles nothing
select pgflow.start_flow('g', '1', run_id => pg_temp.run(6)), pgflow.claim_tasks(array['g'], 100, gen_random_uuid());
select results_eq(
  $$ select applied, problem from pgflow.settle_tasks(
       '[null, [1], {"run_id": "x"}, {}]'::jsonb || jsonb_build_array(
         pg_temp.result(6, 'only', 1, '{"step_slug": 1, "output": 1}'), pg_temp.result(6, 'only', 1, '{"task_index": 1e12}'),
         pg_temp.result(6, 'only', 1, '{"attempt": "first"}'), pg_temp.result(6, 'only', 1, '{"error": "a", "retry_delay": []}'),
         pg_temp.result(6, 'only', 1, '{"error": "a", "permanent": 3}'), pg_temp.result(6, 'only', 1, '{"output": "good"}')
       )) $$,
  $$ values (false, 'it is not an object'), (false, 'it is not an object'), (false, 'run_id is not a uuid'),
            (false, 'run_id is not a uuid'), (false, 'step_slug is not a text'), (false, 'task_index is not a whole number'),
            (false, 'attempt is not a whole number'), (false, 'retry_delay is not a number of seconds'),
            (false, 'permanent is not true or false'), (true, null) $$,
  'a malformed result is reported; the others are settled'
);
select is((select output from pgflow.runs where run_id = pg_temp.run(6)), '{"only": "good"}', 'the good one is settled');
select throws_ok($$ select pgflow.settle_tasks('{}') $$, 'PT400', null, 'results are an array');

select * from finish();
rollback;
