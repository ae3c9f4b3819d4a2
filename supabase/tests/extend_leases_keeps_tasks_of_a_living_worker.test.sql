begin;
select plan(14);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.task(n int, step text, attempt int) returns jsonb
return jsonb_build_object('run_id', pg_temp.run(n), 'step_slug', step, 'task_index', 0, 'attempt', attempt);

select pgflow.create_flow('f');
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'b');
select pgflow.create_flow('g'), pgflow.add_step('g', 'only');

create function pg_temp.lease(n int, step text) returns interval language sql as $$
  select q.vt - clock_timestamp() from pgflow.step_tasks t join pgmq.q_f q on q.msg_id = t.message_id
  where t.run_id = pg_temp.run(n) and t.step_slug = step
$$;

select pgflow.start_flow('f', '1', run_id => pg_temp.run(n)) from generate_series(1, 2) n;
select pgflow.start_flow('g', '1', run_id => pg_temp.run(3));
select pgflow.claim_tasks(array['f', 'g'], 100, gen_random_uuid(), lease => 30);
select pgflow.complete_task(pg_temp.run(2), 'a', 0, '1');
select pgflow.fail_task(pg_temp.run(2), 'b', 0, 'x');

create temp table answer as
select row_number() over () as n, a.* from pgflow.extend_leases(tasks => jsonb_build_array(
  pg_temp.task(1, 'b', 1), pg_temp.task(1, 'a', 1), pg_temp.task(3, 'only', 1),
  pg_temp.task(1, 'a', 2), pg_temp.task(2, 'a', 1), pg_temp.task(2, 'b', 1), pg_temp.task(9, 'a', 1), pg_temp.task(1, 'nope', 1)
), lease => 500) a;
select columns_are('answer', array['n', 'run_id', 'step_slug', 'task_index', 'attempt', 'active', 'status']);
select results_eq(
  $$ select run_id, step_slug, task_index, attempt, active from answer order by run_id, step_slug, attempt $$,
  $$ values
    (pg_temp.run(1), 'a', 0, 1, true),
    (pg_temp.run(1), 'a', 0, 2, false),
    (pg_temp.run(1), 'b', 0, 1, true),
    (pg_temp.run(1), 'nope', 0, 1, false),
    (pg_temp.run(2), 'a', 0, 1, false),
    (pg_temp.run(2), 'b', 0, 1, false),
    (pg_temp.run(3), 'only', 0, 1, true),
    (pg_temp.run(9), 'a', 0, 1, false) $$,
  'answers for each task whether it is still this attempt''s'
);
select ok(pg_temp.lease(1, 'a') between interval '400 s' and interval '500 s', 'an active task is hidden for the lease from now on');
select ok(pg_temp.lease(1, 'b') between interval '400 s' and interval '500 s', 'each of them');
select ok((select vt from pgmq.q_g) > clock_timestamp() + interval '400 s', 'of each flow');
select ok(pg_temp.lease(2, 'b') < interval '400 s', 'a task that is not the caller''s stays as it is');
select pgflow.extend_leases(jsonb_build_array(pg_temp.task(1, 'a', 1)));
select ok(pg_temp.lease(1, 'a') between interval '0' and interval '30 s', '30 seconds, if not said otherwise');
select ok(pg_temp.lease(1, 'b') > interval '400 s', 'of those that are named only');

-- Another attempt
update pgmq.q_f set vt = clock_timestamp() - interval '1 second'
where msg_id = (select message_id from pgflow.step_tasks where run_id = pg_temp.run(1) and step_slug = 'a');
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid(), lease => 30);
select results_eq(
  $$ select attempt, active from pgflow.extend_leases(jsonb_build_array(
       pg_temp.task(1, 'a', 1), pg_temp.task(1, 'a', 2)
     ), 900) order by attempt $$,
  $$ values (1, false), (2, true) $$,
  'a task that another claimed is theirs'
);
select results_eq(
  $$ select active from pgflow.extend_leases(jsonb_build_array(pg_temp.task(1, 'b', 1), pg_temp.task(1, 'b', 1))) $$,
  array[true, true],
  'a task may be named twice'
);

-- Handing back
select pgflow.extend_leases(jsonb_build_array(pg_temp.task(1, 'a', 2)), lease => 0);
select ok(pg_temp.lease(1, 'a') <= interval '0', 'a lease of 0 hands the task back');

-- Nothing
select is_empty($$ select * from pgflow.extend_leases('[]') $$, 'nothing to extend');
select throws_ok($$ select * from pgflow.extend_leases(jsonb_build_array(pg_temp.task(1, 'b', 1)), null) $$, 'PT400', null, 'lease null');
select throws_ok($$ select * from pgflow.extend_leases('[]', -1) $$, 'PT400', null, 'lease below 0');

select * from finish();
rollback;
