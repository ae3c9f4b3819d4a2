begin;
select plan(25);
set local pgflow.now = '2030-01-01 00:00+00';

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.worker() returns uuid return uuid '30000000-0000-4000-8000-000000000001';

select pgflow.create_flow('f', timeout => 7);
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'b', timeout => 9);
select pgflow.add_step('f', 'c', deps_slugs => array['a', 'b']);
select pgflow.start_flow('f', '{"x": 1}', run_id => pg_temp.run());

create temp table claimed as select * from pgflow.claim_tasks(array['f'], 10, pg_temp.worker(), lease => 100);
select columns_are('claimed', array[
  'flow_slug', 'run_id', 'step_slug', 'input', 'msg_id', 'task_index', 'attempt', 'timeout', 'refs'
]);
select results_eq(
  $$ select c.flow_slug, c.run_id, c.step_slug, c.input, c.msg_id = t.message_id, c.task_index, c.attempt, c.timeout
     from claimed c join pgflow.step_tasks t using (run_id, step_slug, task_index) order by c.step_slug $$,
  $$ values ('f', pg_temp.run(), 'a', '{"run": {"x": 1}}'::jsonb, true, 0, 1, 7),
            ('f', pg_temp.run(), 'b', '{"run": {"x": 1}}', true, 0, 1, 9) $$,
  'a claim tells what to do, with which input, as which attempt, in which time'
);
select results_eq(
  $$ select step_slug, status, attempts_count, started_at, last_worker_id from pgflow.step_tasks order by step_slug $$,
  $$ values ('a', 'started', 1, '2030-01-01 00:00+00'::timestamptz, pg_temp.worker()),
            ('b', 'started', 1, '2030-01-01 00:00+00', pg_temp.worker()) $$,
  'the tasks are started, by this worker'
);
select is_empty(
  $$ select vt from pgmq.q_f where vt not between clock_timestamp() + interval '90 s' and clock_timestamp() + interval '100 s' $$,
  'their messages are hidden for the lease'
);
select is_empty(
  $$ select * from pgflow.claim_tasks(array['f'], 10, gen_random_uuid()) $$, 'nobody gets them a second time'
);

-- Inputs of dependents
select pgflow.complete_task(pg_temp.run(), 'a', 0, 'null');
select is_empty($$ select * from pgflow.claim_tasks(array['f'], 10, gen_random_uuid()) $$, 'a step waits for all of its deps');
select pgflow.complete_task(pg_temp.run(), 'b', 0, '{"y": [2]}');
select results_eq(
  $$ select step_slug, input, attempt, timeout from pgflow.claim_tasks(array['f'], 10, gen_random_uuid()) $$,
  $$ values ('c', '{"run": {"x": 1}, "a": null, "b": {"y": [2]}}'::jsonb, 1, 7) $$,
  'its input has the run''s and the output of each dep, null included'
);

-- An input is a value, whatever it looks like.
create temp table inputs (n int, input jsonb);
insert into inputs values (1, 'null'), (2, 'false'), (3, '0'), (4, '""'), (5, '"123"'), (6, '[1]'), (7, '{"run": 1, "a": 2}');
select pgflow.create_flow('one'), pgflow.add_step('one', 'only');
select pgflow.start_flow('one', input, run_id => pg_temp.run(10 + n)) from inputs order by n;
select results_eq(
  $$ select run_id, input from pgflow.claim_tasks(array['one'], 10, gen_random_uuid()) $$,
  $$ select pg_temp.run(10 + n), jsonb_build_object('run', input) from inputs order by n $$,
  'every JSON value arrives as it was given, in the order of the messages'
);

-- Quantity
select pgflow.create_flow('many'), pgflow.add_step('many', 'only');
select pgflow.create_flow('others'), pgflow.add_step('others', 'only');
select pgflow.start_flow('many', to_jsonb(n)) from generate_series(1, 5) n;
select pgflow.start_flow('others', to_jsonb(n)) from generate_series(1, 3) n;
select is_empty($$ select * from pgflow.claim_tasks(array['many'], 0, gen_random_uuid()) $$, 'none are claimed if none are wanted');
select is_empty($$ select * from pgflow.claim_tasks(array['many'], -1, gen_random_uuid()) $$, 'nor fewer');
select is_empty($$ select * from pgmq.q_many where read_ct > 0 $$, 'and no message is touched');
select is((select count(*) from pgflow.claim_tasks(array['many'], 2, gen_random_uuid())), 2::bigint, 'as many as wanted');
select is((select count(*) from pgflow.step_tasks where status = 'started' and flow_slug = 'many'), 2::bigint, 'and no more');
select results_eq(
  $$ select flow_slug from pgflow.claim_tasks(array['many', 'others'], 100, gen_random_uuid()) order by flow_slug $$,
  array['many', 'many', 'many', 'others', 'others', 'others'],
  'of several flows, as many as there are'
);
select is_empty($$ select * from pgflow.claim_tasks(array['many', 'others'], 100, gen_random_uuid()) $$, 'then none');
select pgflow.start_flow(slug, to_jsonb(n)) from generate_series(1, 5) n, unnest(array['many', 'others']) slug;
select is(
  (select count(*) from pgflow.claim_tasks(array['many', 'others'], 7, gen_random_uuid())), 7::bigint,
  'the quantity is that of all flows together'
);
select is((select count(*) from pgflow.step_tasks where status = 'queued'), 3::bigint, 'the rest stays queued');

-- Other flows, delays, nothing
select pgflow.create_flow('late'), pgflow.add_step('late', 'only', start_delay => 60);
select pgflow.start_flow('late', '1');
select is_empty($$ select * from pgflow.claim_tasks(array['late'], 10, gen_random_uuid()) $$, 'a delayed step is not claimed before its time');
select is_empty($$ select * from pgflow.claim_tasks(array['nope'], 10, gen_random_uuid()) $$, 'an unknown flow has no tasks');
select is_empty($$ select * from pgflow.claim_tasks('{}', 10, gen_random_uuid()) $$, 'no flows have none either');
select is_empty($$ select * from pgflow.claim_tasks(null, 10, gen_random_uuid()) $$, 'nor does null');

-- Closed under a message that is still there
select pgflow.create_flow('closed'), pgflow.add_step('closed', 'only');
select pgflow.start_flow('closed', '1');
update pgflow.step_tasks set status = 'cancelled' where flow_slug = 'closed';
select is_empty($$ select * from pgflow.claim_tasks(array['closed'], 10, gen_random_uuid()) $$, 'a closed task is not claimed');

-- Wrong arguments
select throws_ok($$ select pgflow.claim_tasks(array['f'], null, gen_random_uuid()) $$, 'PT400', null, 'quantity null');
select throws_ok($$ select pgflow.claim_tasks(array['f'], 1, gen_random_uuid(), lease => 0) $$, 'PT400', null, 'lease 0');
select throws_ok($$ select pgflow.claim_tasks(array['f'], 1, gen_random_uuid(), lease => null) $$, 'PT400', null, 'lease null');

select * from finish();
rollback;
