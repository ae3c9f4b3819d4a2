begin;
select plan(6);

create function pg_temp.run() returns uuid return '10000000-0000-4000-8000-000000000001'::uuid;

select pgflow.create_flow('f', max_attempts => 2, base_delay => 0), pgflow.add_step('f', 'a');
select pgflow.start_flow('f', '1', run_id => pg_temp.run());

create function pg_temp.fail(attempt int, more jsonb) returns boolean
language sql as $$
  select s.applied from pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
    'run_id', pg_temp.run(), 'step_slug', 'a', 'task_index', 0, 'attempt', attempt, 'error', 'busy', 'retry_delay', 0
  ) || more)) s
$$;
create function pg_temp.claimed() returns int
language sql as $$ select attempt from pgflow.claim_tasks(array['f'], 1, gen_random_uuid()) $$;

prepare task as select status, attempts_count, attempts_before from pgflow.step_tasks;

-- More often than there are attempts.
select is(
  (select array_agg(pg_temp.claimed() = n and pg_temp.fail(n, '{"uncounted": true}')) from generate_series(1, 3) n),
  array[true, true, true],
  'a failure that does not count is followed by another attempt, however many there were'
);
select results_eq('task', $$ values ('queued', 3, 3) $$, 'attempts keep their numbers');
select pg_temp.claimed(), pg_temp.fail(4, '{}');
select results_eq('task', $$ values ('queued', 4, 3) $$, 'one that counts is the first of two');
select pg_temp.claimed(), pg_temp.fail(5, '{}');
select results_eq('task', $$ values ('failed', 5, 3) $$, 'the second is the last');

select pgflow.retry_run(pg_temp.run());
select pg_temp.claimed(), pg_temp.fail(6, '{"uncounted": true, "permanent": true}');
select results_eq('task', $$ values ('failed', 6, 6) $$, 'a permanent failure is permanent');

-- A wait has no attempts, so none has to be left out of account.
select pgflow.create_flow('asks'), pgflow.add_step('asks', 'a', step_type => 'wait');
select pgflow.start_flow('asks', '1', run_id => '10000000-0000-4000-8000-000000000002');
select from pgflow.settle_tasks('[{"run_id": "10000000-0000-4000-8000-000000000002", "step_slug": "a", "task_index": 0, "error": "no", "uncounted": true}]');
select results_eq(
  $$ select status, attempts_count, attempts_before from pgflow.step_tasks where flow_slug = 'asks' $$, $$ values ('failed', 0, 0) $$,
  'a wait that is failed so has used none'
);

select * from finish();
rollback;
