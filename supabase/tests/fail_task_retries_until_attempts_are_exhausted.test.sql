begin;
select plan(37);
set local pgflow.now = '2030-01-01 00:00+00';

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
-- Lets time pass until the next attempt, and claims it.
create function pg_temp.claim_again(flow text) returns int language plpgsql as $$
begin
  execute format('update pgmq.%I set vt = clock_timestamp() - interval ''1 second''', 'q_' || flow);
  return (select max(c.attempt) from pgflow.claim_tasks(array[flow], 100, gen_random_uuid()) c);
end
$$;
create function pg_temp.settle(step text, attempt int, result jsonb, run uuid default pg_temp.run()) returns boolean
return (select s.applied from pgflow.settle_tasks(jsonb_build_array(
  jsonb_build_object('run_id', run, 'step_slug', step, 'task_index', 0, 'attempt', attempt) || result
)) s);
create function pg_temp.hidden_for(flow text) returns interval language plpgsql as $$
declare
  until timestamptz;
begin
  execute format('select vt from pgmq.%I', 'q_' || flow) into until;
  return until - pgflow.now();
end
$$;

select pgflow.create_flow('f', max_attempts => 4, base_delay => 5);
select pgflow.add_step('f', 'a');
select pgflow.start_flow('f', '1', run_id => pg_temp.run());

-- Queued: a person may fail it, which counts as an attempt.
create temp table answer as
select * from pgflow.fail_task(run_id => pg_temp.run(), step_slug => 'a', task_index => 0, error_message => 'by hand');
select results_eq(
  'table answer', $$ select * from pgflow.step_tasks where run_id = pg_temp.run() $$, 'answers with the task''s row'
);
select is(
  (select (status, attempts_count, error_message)::text from answer), '(queued,1,"by hand")', 'the task waits for its next attempt'
);
select is(pg_temp.hidden_for('f'), interval '10 seconds', 'for base_delay * 2^1 seconds');

-- The second attempt
select is(pg_temp.claim_again('f'), 2, 'the second attempt');
create temp table run_before as select r.ctid as version, r.* from pgflow.runs r;
select ok(pg_temp.settle('a', 2, '{"error": "boom"}'), 'fails');
select is(pg_temp.hidden_for('f'), interval '20 seconds', 'the next one waits base_delay * 2^2 seconds');
select results_eq(
  $$ select status, error, retries, retry_at, remaining_tasks, failed_at from pgflow.step_states $$,
  $$ values ('started', 'boom', 2, '2030-01-01 00:00:20+00'::timestamptz, 1, null::timestamptz) $$,
  'the step goes on, and shows why and until when it waits'
);
select results_eq(
  $$ select status, error_message, failed_at from pgflow.step_tasks $$,
  $$ values ('queued', 'boom', null::timestamptz) $$,
  'so does the task'
);
select results_eq(
  $$ select r.ctid, r.* from pgflow.runs r $$, 'table run_before',
  'a plain retry does not write the run'
);
select is_empty($$ select * from pgflow.claim_tasks(array['f'], 10, gen_random_uuid()) $$, 'nobody claims it before');

-- The third
select is(pg_temp.claim_again('f'), 3, 'the third attempt');
select ok(not pg_temp.settle('a', 2, '{"output": "too late"}'), 'the second one''s late result is stale');
select ok(pg_temp.settle('a', 3, '{"error": "boom again"}'), 'fails');
select is(pg_temp.hidden_for('f'), interval '40 seconds', 'the next one waits base_delay * 2^3 seconds');

-- The last
select is(pg_temp.claim_again('f'), 4, 'the last attempt');
select ok(pg_temp.settle('a', 4, '{"error": "the end"}'), 'fails');
select results_eq(
  $$ select status, error, failed_at from pgflow.runs $$,
  $$ values ('failed', 'the end', '2030-01-01 00:00+00'::timestamptz) $$,
  'and so does the run, with its error'
);
select results_eq(
  $$ select status, error, retries, failed_at from pgflow.step_states $$,
  $$ values ('failed', 'the end', 3, '2030-01-01 00:00+00'::timestamptz) $$,
  'and the step'
);
select is_empty($$ select * from pgflow.fail_task(pg_temp.run(), 'a', 0, 'once more') $$, 'a task that has failed fails no more');

-- Own delays, own options
select pgflow.create_flow('g', max_attempts => 1);
select pgflow.add_step('g', 'a', max_attempts => 9, base_delay => 0.5);
select pgflow.start_flow('g', '1', run_id => pg_temp.run(2));
select pg_temp.claim_again('g');
select pg_temp.settle('a', 1, '{"error": "x"}', pg_temp.run(2));
select is(pg_temp.hidden_for('g'), interval '1 second', 'a step''s own options come before the flow''s');
select pg_temp.claim_again('g');
select pg_temp.settle('a', 2, '{"error": "x", "retry_delay": 0.25}', pg_temp.run(2));
select is(pg_temp.hidden_for('g'), interval '0.25 seconds', 'a failure may name its own delay');
select pg_temp.claim_again('g');
select pg_temp.settle('a', 3, '{"error": "x", "retry_delay": 0}', pg_temp.run(2));
select is(pg_temp.hidden_for('g'), interval '0', 'none, too');
select pg_temp.claim_again('g');
select pg_temp.settle('a', 4, '{"error": "x", "retry_delay": 1e300}', pg_temp.run(2));
select is(pg_temp.hidden_for('g'), interval '31536000 seconds', 'a year at most');
select pg_temp.claim_again('g');
select pg_temp.settle('a', 5, '{"error": "x", "retry_delay": -1e300}', pg_temp.run(2));
select is(pg_temp.hidden_for('g'), interval '0', 'and not before now');
select pg_temp.claim_again('g');
select ok(pg_temp.settle('a', 6, '{"error": "x", "permanent": false}', pg_temp.run(2)), 'a failure that is not permanent');
select is((select status from pgflow.runs where run_id = pg_temp.run(2)), 'started', 'is retried');
select pg_temp.claim_again('g');
select ok(pg_temp.settle('a', 7, '{"error": "x", "permanent": true}', pg_temp.run(2)), 'a permanent one');
select is((select status from pgflow.runs where run_id = pg_temp.run(2)), 'failed', 'is not');

-- What an error may be
select pgflow.create_flow('h', max_attempts => 1), pgflow.add_step('h', 'a');
select pgflow.start_flow('h', '1', run_id => pg_temp.run(n)) from generate_series(3, 5) n;
select pgflow.claim_tasks(array['h'], 100, gen_random_uuid());
select pg_temp.settle('a', 1, '{"error": ""}', pg_temp.run(3));
select pg_temp.settle('a', 1, '{"error": null}', pg_temp.run(4));
select pgflow.fail_task(pg_temp.run(5), 'a', 0, null);
select results_eq(
  $$ select status, error from pgflow.runs where flow_slug = 'h' order by run_id $$,
  $$ values ('failed', ''), ('failed', 'failed without a message'), ('failed', 'failed without a message') $$,
  'an empty error is one, a missing one is said to be'
);

-- The last attempt may be one that nobody claimed.
select pgflow.start_flow('h', '1', run_id => pg_temp.run(7));
select is((select t.status from pgflow.fail_task(pg_temp.run(7), 'a', 0, 'by hand') t), 'failed', 'a task that waits fails by hand');
select is((select error from pgflow.runs where run_id = pg_temp.run(7)), 'by hand', 'and its run with it');

-- Wrong state
select is_empty($$ select * from pgflow.fail_task(pg_temp.run(9), 'a', 0, 'x') $$, 'no row for an unknown run');
select pgflow.start_flow('h', '1', run_id => pg_temp.run(6));
select pgflow.complete_task(pg_temp.run(6), 'a', 0, '1');
select is_empty($$ select * from pgflow.fail_task(pg_temp.run(6), 'a', 0, 'x') $$, 'nor for a task that is completed');
select is((select status from pgflow.runs where run_id = pg_temp.run(6)), 'completed', 'whose run stays completed');

-- No attempts
select pgflow.create_flow('never', max_attempts => 0), pgflow.add_step('never', 'a'), pgflow.add_step('never', 'b', max_attempts => 3);
select pgflow.start_flow('never', '1', run_id => pg_temp.run(90));
select is(pg_temp.claim_again('never'), 1, 'max_attempts 0 gives a task its first attempt');
select ok(pg_temp.settle('a', 1, '{"error": "no"}', pg_temp.run(90)), 'whose failure');
select is((select status from pgflow.runs where run_id = pg_temp.run(90)), 'failed', 'is final');

select * from finish();
rollback;
