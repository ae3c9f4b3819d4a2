begin;
select plan(12);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

-- Nothing makes a task wait yet: here, somebody does by hand.
create function pg_temp.wait(n int) returns void language sql as $$
  select pgmq.archive('f', t.message_id) from pgflow.step_tasks t where t.run_id = pg_temp.run(n) and t.step_slug = 'a';
  update pgflow.step_tasks t set status = 'waiting', waits_for = 'signal', due_at = now() + interval '1 day', message_id = null
  where t.run_id = pg_temp.run(n) and t.step_slug = 'a';
$$;
create function pg_temp.task(n int) returns text
return (select (t.status, t.waits_for, t.due_at is null)::text from pgflow.step_tasks t where t.run_id = pg_temp.run(n) and t.step_slug = 'a');

select pgflow.create_flow('f', max_attempts => 1), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b'), pgflow.add_step('f', 'c', array['a']);
select pgflow.start_flow('f', '1', run_id => pg_temp.run(n)), pg_temp.wait(n) from generate_series(1, 3) n;

select is(pg_temp.task(1), '(waiting,signal,f)', 'a task waits without a message');
select set_eq(
  $$ select step_slug from pgflow.claim_tasks(array['f'], 10, gen_random_uuid()) $$, array['b'], 'no worker gets it'
);
select is_empty(
  $$ select from pgflow.hand_back((select jsonb_agg(to_jsonb(t)) from pgflow.step_tasks t where t.status = 'waiting')) n where n > 0 $$,
  'nor gives it back'
);

-- A cancel
select is((select status from pgflow.cancel_run(pg_temp.run(1))), 'cancelled', 'its run is cancelled');
select is(pg_temp.task(1), '(cancelled,,t)', 'and it waits for nothing any more');

-- A failure
select pgflow.fail_task(pg_temp.run(2), 'b', 0, 'broken');
select is((select status from pgflow.runs where run_id = pg_temp.run(2)), 'failed', 'its run fails');
select is(pg_temp.task(2), '(cancelled,,t)', 'which closes it, too');

-- A retry
select is((select status from pgflow.retry_run(pg_temp.run(n))), 'started', 'its run is retried') from unnest(array[1, 2]) n;
select is(pg_temp.task(n), '(queued,,t)', 'and the task is there again') from unnest(array[1, 2]) n;

-- The deletion of its run
select lives_ok($$ delete from pgflow.runs where run_id = pg_temp.run(3) $$, 'its run is deleted');

select * from finish();
rollback;
