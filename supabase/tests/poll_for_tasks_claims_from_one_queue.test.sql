begin;
select plan(17);

select pgflow.create_flow('f', timeout => 7);
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'b', timeout => 1000);
select pgflow.create_flow('Upper'), pgflow.add_step('Upper', 'a');
select pgflow.start_flow('f', '{"x": 1}'), pgflow.start_flow('Upper', '2');

create temp table polled as
select * from pgflow.poll_for_tasks(
  queue_name => 'f', vt => 1, qty => 10, max_poll_seconds => 0, poll_interval_ms => 10
);
select columns_are('polled', array[
  'flow_slug', 'run_id', 'step_slug', 'input', 'msg_id', 'task_index', 'attempt', 'timeout', 'refs'
]);
select results_eq(
  $$ select p.flow_slug, p.step_slug, p.input, p.attempt, p.timeout, p.msg_id = t.message_id
     from polled p join pgflow.step_tasks t using (run_id, step_slug, task_index) order by p.step_slug $$,
  $$ values ('f', 'a', '{"run": {"x": 1}}'::jsonb, 1, 7, true), ('f', 'b', '{"run": {"x": 1}}', 1, 1000, true) $$,
  'claims the tasks of the queue'
);
select results_eq(
  $$ select q.vt between clock_timestamp() + make_interval(secs => p.timeout - 20) and clock_timestamp() + make_interval(secs => p.timeout + 2),
            q.vt > clock_timestamp() + interval '500 seconds'
     from polled p join pgmq.q_f q using (msg_id) order by p.step_slug $$,
  $$ values (true, false), (true, true) $$,
  'each message is hidden for its own step''s timeout and two seconds'
);
select is_empty(
  $$ select * from polled p join pgmq.q_f q using (msg_id) where q.vt <= q.last_read_at + make_interval(secs => p.timeout + 1.9) $$,
  'not less'
);
select set_eq(
  $$ select status, last_worker_id from pgflow.step_tasks where flow_slug = 'f' $$, $$ values ('started', null::uuid) $$,
  'the tasks are started'
);
select is_empty($$ select * from pgflow.poll_for_tasks('f', 1, 10, 0) $$, 'and not given again');

-- A queue whose name is not its flow's slug
select results_eq(
  $$ select p.flow_slug, p.input from pgflow.flows f
     cross join lateral pgflow.poll_for_tasks(f.queue_name, 1, 10, 0) p where f.flow_slug = 'Upper' $$,
  $$ values ('Upper', '{"run": 2}'::jsonb) $$,
  'a queue is found by the name that the flow says'
);

-- Quantity, waiting
select pgflow.start_flow('f', '1') from generate_series(1, 3);
select is((select count(*) from pgflow.poll_for_tasks('f', 1, 2, 0)), 2::bigint, 'as many as wanted');
select is((select count(*) from pgflow.poll_for_tasks('f', 1, 100, 0)), 4::bigint, 'the rest');
select pgflow.create_flow('soon'), pgflow.add_step('soon', 'a', start_delay => 1);
select pgflow.start_flow('soon', '1');
select is((select count(*) from pgflow.poll_for_tasks('soon', 1, 10, 20, 20)), 1::bigint, 'waits for a task that comes');

-- Zero
select pgflow.start_flow('f', '1');
select is((select count(*) from pgflow.poll_for_tasks('f', vt => 1, qty => 0, max_poll_seconds => 600)), 0::bigint, 'qty 0 claims nothing, at once');
create temp table at_once as select * from pgflow.poll_for_tasks('f', vt => 0, qty => 1, max_poll_seconds => 0);
select results_eq(
  $$ select p.step_slug, q.vt > clock_timestamp() + interval '4 seconds' from at_once p join pgmq.q_f q using (msg_id) $$,
  $$ values ('a', true) $$, 'vt 0 claims, for the step''s timeout'
);
select is((select count(*) from pgflow.poll_for_tasks('f', vt => 0, qty => 9, max_poll_seconds => 0)), 1::bigint, 'what is left');

-- Wrong arguments
select throws_ok($$ select pgflow.poll_for_tasks('nope', 1, 1, 0) $$, 'PT404', 'no flow has the queue "nope"', 'an unknown queue');
select throws_ok($$ select pgflow.poll_for_tasks('f', -1, 1, 0) $$, 'PT400', null, 'vt below 0');
select throws_ok($$ select pgflow.poll_for_tasks('f', null, 1, 0) $$, 'PT400', null, 'vt null');
select throws_ok($$ select pgflow.poll_for_tasks('f', 1, null, 0) $$, 'PT400', null, 'qty null');

select * from finish();
rollback;
