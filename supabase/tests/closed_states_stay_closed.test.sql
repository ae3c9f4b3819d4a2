begin;
select plan(52);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

-- Run 1 has completed, 2 has failed, 3 was cancelled; each had a task that a worker still works on. Run 4 goes on, with a
-- completed step, a skipped one, and a completed item of a map.
select pgflow.create_flow('f', max_attempts => 5, base_delay => 0);
select pgflow.add_step('f', 'a'), pgflow.add_step('f', 'each', step_type => 'map', when_exhausted => 'skip'),
       pgflow.add_step('f', 'opt', run_if => '{"run": 1}', when_unmet => 'skip'), pgflow.add_step('f', 'b', array['a', 'opt']);
select pgflow.start_flow('f', '[1, 2]', run_id => pg_temp.run(n), idempotency_key => 'k' || n) from generate_series(1, 4) n;
create temp table claimed as select * from pgflow.claim_tasks(array['f'], 100, '30000000-0000-4000-8000-000000000001');
create temp table results as
select jsonb_build_object('run_id', c.run_id, 'step_slug', c.step_slug, 'task_index', c.task_index, 'attempt', n) as task
from claimed c cross join generate_series(0, 3) n
where c.run_id <> pg_temp.run(4) or c.step_slug = 'a' or c.task_index = 0;
select pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
  'run_id', pg_temp.run(1), 'step_slug', 'each', 'task_index', 0, 'attempt', 1, 'error', 'x', 'permanent', true
)));
select pgflow.complete_task(pg_temp.run(1), 'a', 0, '1'), pgflow.complete_task(pg_temp.run(1), 'b', 0, '1');
select pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
  'run_id', pg_temp.run(2), 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'error', 'x', 'permanent', true
)));
select pgflow.cancel_run(pg_temp.run(3));
select pgflow.complete_task(pg_temp.run(4), 'a', 0, '1'), pgflow.complete_task(pg_temp.run(4), 'each', 0, '1');

select results_eq(
  'select status from pgflow.runs order by run_id', array['completed', 'failed', 'cancelled', 'started'], 'runs in every status'
);
select set_eq('select distinct status from pgflow.step_states', array['completed', 'failed', 'skipped', 'cancelled', 'started'], 'and steps');
select set_eq('select distinct status from pgflow.step_tasks', array['completed', 'failed', 'skipped', 'cancelled', 'started', 'queued'], 'and tasks');

-- Rows that are closed, with where they are stored: an update that changes nothing is noticed as well.
create function pg_temp.closed() returns table (place text, r jsonb) language sql begin atomic
  select 'runs' || r.ctid, to_jsonb(r) from pgflow.runs r where r.status <> 'started'
  union all
  select 'step_states' || s.ctid, to_jsonb(s) from pgflow.step_states s
  where s.status in ('completed', 'skipped') or s.run_id in (select pg_temp.run(n) from generate_series(1, 3) n)
  union all
  select 'step_tasks' || t.ctid, to_jsonb(t) from pgflow.step_tasks t
  where t.status in ('completed', 'failed', 'skipped') or t.run_id in (select pg_temp.run(n) from generate_series(1, 3) n)
  union all
  select 'run_events' || e.ctid, to_jsonb(e) from pgflow.run_events e where e.run_id in (select pg_temp.run(n) from generate_series(1, 3) n);
end;
create temp table before as select * from pg_temp.closed();

-- Messages that came back for what is closed.
select pgmq.send('f', task - 'attempt' || '{"flow_slug": "f"}') from results where (task -> 'attempt')::int = 0;
create function pg_temp.swallow(statement text) returns void language plpgsql as $$
begin
  execute statement;
exception when sqlstate 'PT409' or sqlstate 'PT404' then null;
end
$$;
create temp table calls (name text, statement text);
insert into calls values
  ('settle_tasks', $$select pgflow.settle_tasks((select jsonb_agg(task || '{"output": "late"}') from results))$$),
  ('settle_tasks', $$select pgflow.settle_tasks((select jsonb_agg(task || '{"error": "late"}') from results))$$),
  ('settle_tasks', $$select pgflow.settle_tasks((select jsonb_agg(task || '{"error": "late", "permanent": true}') from results))$$),
  ('complete_task', $$select pgflow.complete_task((task ->> 'run_id')::uuid, task ->> 'step_slug', (task ->> 'task_index')::int, '"late"') from results$$),
  ('fail_task', $$select pgflow.fail_task((task ->> 'run_id')::uuid, task ->> 'step_slug', (task ->> 'task_index')::int, 'late') from results$$),
  ('settle_and_claim', $$select pgflow.settle_and_claim((select jsonb_agg(task || '{"output": "late"}') from results), '{f}', 1, null)$$),
  ('settle_and_claim', $$select pgflow.settle_and_claim((select jsonb_agg(task || '{"error": "late", "thrown": {"name": "Late"}}') from results), '{f}', 1, null)$$),
  ('extend_leases', $$select pgflow.extend_leases((select jsonb_agg(task) from results))$$),
  ('hand_back', $$select pgflow.hand_back((select jsonb_agg(task) from results))$$),
  ('report_progress', $$select pgflow.report_progress((select jsonb_agg(task || '{"progress": {"value": 1}}') from results))$$),
  ('claim_tasks', $$select pgflow.claim_tasks('{f}', 1000, gen_random_uuid())$$),
  ('poll_for_tasks', $$select pgflow.poll_for_tasks('f', 30, 1000, max_poll_seconds => 0)$$),
  ('cancel_run', $$select pgflow.cancel_run(pg_temp.run(1), 'late')$$),
  ('cancel_run', $$select pgflow.cancel_run(pg_temp.run(2), 'late')$$),
  ('cancel_run', $$select pgflow.cancel_run(pg_temp.run(3), 'late')$$),
  ('retry_run', $$select pgflow.retry_run(pg_temp.run(1))$$),
  ('start_flow', $$select pgflow.start_flow('f', '[1, 2]', run_id => pg_temp.run(n)) from generate_series(1, 3) n$$),
  ('start_flows', $$select pgflow.start_flows('f', '[[1, 2], [1, 2], [1, 2]]', array['k1', 'k2', 'k3'])$$),
  ('watch_runs', $$select pgflow.watch_runs(array[pg_temp.run(n)], 'pgflow:watch:me') from generate_series(1, 3) n$$),
  ('maintain', $$select pgflow.maintain()$$),
  ('repair', $$select pgflow.repair()$$),
  ('prune_runs', $$select pgflow.prune_runs(interval '1 day')$$),
  ('create_flow', $$select pgflow.create_flow('f', max_attempts => 99)$$),
  ('add_step', $$select pgflow.add_step('f', 'a', max_attempts => 99)$$),
  ('register_flow', $$select pgflow.register_flow(pgflow.flow_definition('f') || '{"timeout": 99}')$$),
  ('set_limit', $$select pgflow.set_limit('x', running => 1)$$),
  ('reset_limit', $$select pgflow.reset_limit('x')$$),
  ('delete_flow', $$select pgflow.delete_flow('f')$$),
  ('register_worker', $$select pgflow.register_worker('30000000-0000-4000-8000-000000000001', 'w', '{f}')$$),
  ('heartbeat', $$select pgflow.heartbeat('30000000-0000-4000-8000-000000000001')$$),
  ('stop_worker', $$select pgflow.stop_worker('30000000-0000-4000-8000-000000000001')$$),
  ('keep_result', $$select pg_temp.swallow(format('select pgflow.keep_result(%L, %L, %s, %s, %L, %L)', task ->> 'run_id', task ->> 'step_slug', task ->> 'task_index', task ->> 'attempt', 'x', '1')) from results$$),
  ('complete_in_transaction', $$select pg_temp.swallow(format('select pgflow.complete_in_transaction(%L, %L, %s, %s, %L)', task ->> 'run_id', task ->> 'step_slug', task ->> 'task_index', task ->> 'attempt', '1')) from results$$),
  ('complete_wait', $$select pg_temp.swallow(format('select pgflow.complete_wait(%L, %L)', task ->> 'run_id', task ->> 'step_slug')) from results$$),
  ('reject_wait', $$select pg_temp.swallow(format('select pgflow.reject_wait(%L, %L, %L)', task ->> 'run_id', task ->> 'step_slug', 'late')) from results$$),
  ('tick', $$select pgflow.tick()$$),
  ('settle_due', $$select pgflow.settle_due()$$),
  ('call_functions', $$select pgflow.call_functions()$$),
  ('wake_worker', $$select pgflow.wake_worker()$$),
  ('keep_worker_awake', $$select pgflow.keep_worker_awake()$$),
  ('schedule', $$select pgflow.create_flow('s'), pgflow.add_step('s', 'a'), pgflow.schedule('f', 's', '* * * * *', overlap => 'cancel')$$),
  ('start_due_schedules', $$select pgflow.start_due_schedules()$$),
  ('pause_schedule', $$select pgflow.pause_schedule('f')$$),
  ('resume_schedule', $$select pgflow.resume_schedule('f')$$),
  ('run_schedule', $$select pgflow.run_schedule('f')$$),
  ('unschedule', $$select pgflow.unschedule('f')$$);
select set_eq(
  'select distinct name from calls',
  $$ select distinct p.proname from pg_proc p
     where p.pronamespace = 'pgflow'::regnamespace and p.provolatile = 'v' and obj_description(p.oid) is not null and p.proname not in ('now', 'new_run_ids', 'may_start', 'forget_owner', 'next_due_at', 'next_due_in', 'call_timeout', 'next_call_in') $$,
  'every public function that could change something'
);
select lives_ok(format('select pg_temp.swallow(%L)', statement), statement) from calls order by ctid;
-- A message that was read before, and whose task is closed, is archived by the next claim.
update pgmq.q_f set vt = clock_timestamp() - interval '1 second' where read_ct > 0;
select pgflow.claim_tasks('{f}', 1000, gen_random_uuid());
select is_empty(
  $$ (table before except select * from pg_temp.closed())
     union all (select * from pg_temp.closed() where r ->> 'run_id' <> pg_temp.run(4)::text except table before) $$,
  'nothing but retry_run touches what is closed'
);
select is_empty(
  $$ select * from pgmq.q_f q join pgflow.runs r on r.run_id = (q.message ->> 'run_id')::uuid where r.status <> 'started' $$,
  'messages of what is closed do not stay'
);

select * from finish();
rollback;
