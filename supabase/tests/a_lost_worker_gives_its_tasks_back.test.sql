begin;
select plan(20);
set local pgflow.now = '2030-01-01 00:00+00';

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

select pgflow.create_flow('f', max_attempts => 2);
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'b');
select pgflow.add_step('f', 'c', deps_slugs => array['a']);

create function pg_temp.leases_end() returns void language sql as $$
  update pgmq.q_f set vt = clock_timestamp() - interval '1 second'
$$;

select pgflow.start_flow('f', '1', run_id => pg_temp.run(1));

select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
select pg_temp.leases_end();
select results_eq(
  $$ select step_slug, attempt from pgflow.claim_tasks(array['f'], 100, '30000000-0000-4000-8000-000000000002') order by step_slug $$,
  $$ values ('a', 2), ('b', 2) $$,
  'a task whose lease has run out is claimed again, as its next attempt'
);
select results_eq(
  $$ select status, attempts_count, last_worker_id from pgflow.step_tasks order by step_slug $$,
  $$ values ('started', 2, '30000000-0000-4000-8000-000000000002'::uuid), ('started', 2, '30000000-0000-4000-8000-000000000002') $$,
  'by another worker'
);
select results_eq(
  $$ select applied from pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
       'run_id', pg_temp.run(1), 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'output', 'late'
     ))) $$,
  array[false],
  'the first one''s result comes too late'
);
select results_eq(
  $$ select applied from pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
       'run_id', pg_temp.run(1), 'step_slug', 'a', 'task_index', 0, 'attempt', 2, 'output', 'in time'
     ))) $$,
  array[true],
  'the second one''s is applied'
);

-- After the last attempt: b fails, and its run with it; run 2 goes on.
select pgflow.start_flow('f', '2', run_id => pg_temp.run(2));
select pg_temp.leases_end();
create temp table claimed as select * from pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
select is_empty($$ select * from claimed where step_slug = 'b' and run_id = pg_temp.run(1) $$, 'a task is not claimed after its last attempt');
select matches((select error from pgflow.runs where run_id = pg_temp.run(1)), 'lease expired', 'its run fails and says why');
select results_eq(
  $$ select step_slug, status from pgflow.step_states where run_id = pg_temp.run(1) order by step_slug $$,
  $$ values ('a', 'completed'), ('b', 'failed'), ('c', 'cancelled') $$,
  'with everything that was open'
);
select results_eq(
  $$ select status, attempts_count, failed_at from pgflow.step_tasks where run_id = pg_temp.run(1) and step_slug = 'b' $$,
  $$ values ('failed', 2, '2030-01-01 00:00+00'::timestamptz) $$,
  'the task as well'
);
select matches(
  (select error_message from pgflow.step_tasks where run_id = pg_temp.run(1) and step_slug = 'b'), 'lease expired', 'which says why, too'
);
select results_eq(
  $$ select run_id, step_slug, attempt from claimed order by step_slug $$,
  $$ values (pg_temp.run(2), 'a', 1), (pg_temp.run(2), 'b', 1) $$,
  'the same claim takes what can be taken, and nothing of the run that it ended'
);
select is_empty($$ select * from pgmq.q_f where message ->> 'run_id' = pg_temp.run(1)::text $$, 'no message of it is left');

-- Orphans: messages whose task is closed, or does not exist, or has another message.
select pgmq.send('f', jsonb_build_object('flow_slug', 'f', 'run_id', pg_temp.run(1), 'step_slug', 'a', 'task_index', 0));
select pgmq.send('f', jsonb_build_object('flow_slug', 'f', 'run_id', pg_temp.run(9), 'step_slug', 'a', 'task_index', 0));
select pgmq.send('f', jsonb_build_object('flow_slug', 'f', 'run_id', pg_temp.run(2), 'step_slug', 'a', 'task_index', 0));
select is_empty($$ select * from pgflow.claim_tasks(array['f'], 100, gen_random_uuid()) $$, 'a message without an open task is not claimed');
select is((select count(*) from pgmq.q_f), 5::bigint, 'the first time it is only hidden');
select pg_temp.leases_end();
select results_eq(
  $$ select step_slug, attempt from pgflow.claim_tasks(array['f'], 100, gen_random_uuid()) order by step_slug $$,
  $$ values ('a', 2), ('b', 2) $$,
  'then the tasks that are open are claimed'
);
select is((select count(*) from pgmq.q_f), 2::bigint, 'and the others'' messages archived');
select is((select count(*) from pgmq.q_f q join pgflow.step_tasks t on t.message_id = q.msg_id), 2::bigint, 'which leaves those of the tasks');
select is(
  (select count(*) from pgflow.run_events where run_id = pg_temp.run(2) and type <> 'run:started' and type <> 'step:started'), 0::bigint,
  'a claim is no transition: the log does not grow'
);

-- A task that waits for its retry when the flow's attempts are lowered
select pgflow.create_flow('g', max_attempts => 5), pgflow.add_step('g', 'a');
select pgflow.start_flow('g', '1', run_id => pg_temp.run(3));
select pgflow.claim_tasks(array['g'], 1, gen_random_uuid());
select pgflow.fail_task(pg_temp.run(3), 'a', 0, 'boom');
update pgflow.flows set opt_max_attempts = 1 where flow_slug = 'g';
update pgmq.q_g set vt = clock_timestamp() - interval '1 second';
select is_empty($$ select * from pgflow.claim_tasks(array['g'], 1, gen_random_uuid()) $$, 'it has no attempt left');
select results_eq(
  $$ select status, error from pgflow.runs where run_id = pg_temp.run(3) $$, $$ values ('failed', 'boom') $$,
  'its run does not hang, but fails with the last error'
);
select is((select count(*) from pgmq.q_g), 0::bigint, 'no message stays in the queue');

select * from finish();
rollback;
