begin;
select plan(9);

select pgflow.create_flow('f', base_delay => 0);
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'b', start_delay => 600);
select pgflow.add_step('f', 'each', step_type => 'map', start_delay => 1200);
select pgflow.add_step('f', 'opt', run_if => '{"run": 1}', when_unmet => 'skip');
select pgflow.add_step('f', 'later', array['opt'], start_delay => 60);
select pgflow.add_step('f', 'last', array['a'], start_delay => 1800);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
-- The minutes for which the messages of open tasks were hidden.
create function pg_temp.delays(n int) returns text
return (
  select string_agg(format('%s %s', t.step_slug, round(extract(epoch from q.vt - q.enqueued_at) / 60)), ', ' order by t.step_slug, t.task_index)
  from pgflow.step_tasks t join pgmq.q_f q on q.msg_id = t.message_id
  where t.run_id = pg_temp.run(n)
);

select pgflow.start_flow('f', '[1, 2]', run_id => pg_temp.run(1));
select is(pg_temp.delays(1), 'a 0, b 10, each 20, each 20, later 1', 'each step waits for its own delay, each item of a map for its map''s');
select results_eq(
  $$ select step_slug, status from pgflow.step_states where run_id = pg_temp.run(1) and step_slug in ('b', 'each', 'later') order by 1 $$,
  $$ values ('b', 'started'), ('each', 'started'), ('later', 'started') $$, 'it has started meanwhile, only its tasks wait'
);
select results_eq(
  $$ select step_slug from pgflow.claim_tasks(array['f'], 100, gen_random_uuid()) $$, array['a'], 'nobody claims a task before that'
);
select pgflow.complete_task(pg_temp.run(1), 'a', 0, '1');
select is(pg_temp.delays(1), 'b 10, each 20, each 20, last 30, later 1', 'a dependent''s delay begins when it is ready');

select pgflow.start_flow('f', '[1]', run_id => pg_temp.run(2), delay => 6000);
select is(pg_temp.delays(2), 'a 100, b 110, each 120, later 101', 'a run''s delay is added to that of everything that starts with it');
select pgflow.complete_task(pg_temp.run(2), 'a', 0, '1');
select is(pg_temp.delays(2), 'b 110, each 120, last 30, later 101', 'but not to that of what starts later');

select pgflow.start_flows('f', '[[], []]', delay => 3600);
select is(
  (select count(*) from pgmq.q_f where vt > clock_timestamp() + interval '59 minutes' and vt < clock_timestamp() + interval '62 minutes'),
  4::bigint, 'start_flows delays all of its runs'
);

-- Retried attempts wait for their retry delay, not for the start delay again.
update pgmq.q_f set vt = clock_timestamp() - interval '1 second'
where msg_id = (select message_id from pgflow.step_tasks where run_id = pg_temp.run(1) and step_slug = 'b');
select pgflow.claim_tasks(array['f'], 1, gen_random_uuid());
select pgflow.fail_task(pg_temp.run(1), 'b', 0, 'boom');
select is(
  (select q.vt < clock_timestamp() + interval '1 second' from pgflow.step_tasks t join pgmq.q_f q on q.msg_id = t.message_id
   where t.run_id = pg_temp.run(1) and t.step_slug = 'b'),
  true, 'an attempt is delayed by its retry delay only'
);
select is((select count(*) from pgflow.run_events where run_id = pg_temp.run(1) and type = 'step:started'), 5::bigint, 'each step starts once');

select * from finish();
rollback;
