begin;
select plan(13);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.task(n int, step text, attempt int) returns jsonb
return jsonb_build_object('run_id', pg_temp.run(n), 'step_slug', step, 'task_index', 0, 'attempt', attempt);
create function pg_temp.claim() returns setof pgflow.step_task_record language sql as $$
  select * from pgflow.claim_tasks(array['f', 'g'], 100, '30000000-0000-4000-8000-000000000001')
$$;

select pgflow.create_flow('f', max_attempts => 1), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b');
select pgflow.create_flow('g'), pgflow.add_step('g', 'a');
select pgflow.start_flow('f', '1', run_id => pg_temp.run(1));
select pgflow.start_flow('g', '1', run_id => pg_temp.run(2));
select is((select count(*) from pg_temp.claim()), 3::bigint, 'all is claimed');
select is_empty('select * from pg_temp.claim()', 'and hidden');

select is(pgflow.hand_back(jsonb_build_array(pg_temp.task(1, 'a', 1), pg_temp.task(2, 'a', 1))), 2, 'answers how many it gave back');
select results_eq(
  'select run_id, step_slug, status, attempts_count, attempts_before from pgflow.step_tasks order by run_id, step_slug',
  $$ values (pg_temp.run(1), 'a', 'queued', 1, 1), (pg_temp.run(1), 'b', 'started', 1, 0), (pg_temp.run(2), 'a', 'queued', 1, 1) $$,
  'they are queued again, of every flow; others stay'
);
select set_eq(
  $$ select (applied) from pgflow.settle_tasks(jsonb_build_array(pg_temp.task(1, 'a', 1) || '{"output": "late"}')) $$,
  array[false], 'a late result of that attempt changes nothing'
);
select is(pgflow.hand_back(jsonb_build_array(pg_temp.task(1, 'a', 1))), 0, 'given back once');
select results_eq(
  'select run_id, step_slug, attempt from pg_temp.claim() order by run_id',
  $$ values (pg_temp.run(1), 'a', 2), (pg_temp.run(2), 'a', 2) $$,
  'they are claimed at once, even if one attempt is all that they have'
);
select is(
  pgflow.hand_back(jsonb_build_array(pg_temp.task(1, 'a', 1), pg_temp.task(1, 'nope', 1), pg_temp.task(9, 'a', 1))), 0,
  'nothing but what is the caller''s attempt'
);
select is((select status from pgflow.step_tasks where run_id = pg_temp.run(1) and step_slug = 'a'), 'started', 'is given back');

-- The attempts that are left are as many as before.
select pgflow.settle_tasks(jsonb_build_array(pg_temp.task(1, 'a', 2) || '{"error": "boom"}'));
select is((select status from pgflow.runs where run_id = pg_temp.run(1)), 'failed', 'the one attempt that counts has failed');
select is(
  (select sum(retries) from pgflow.step_states where run_id = pg_temp.run(1)), 0::bigint, 'nothing of it is a retry'
);
select is(pgflow.hand_back(jsonb_build_array(pg_temp.task(1, 'b', 1))), 0, 'a closed task is not given back');
select is(pgflow.hand_back('[]'), 0, 'nothing to give back');

select * from finish();
rollback;
