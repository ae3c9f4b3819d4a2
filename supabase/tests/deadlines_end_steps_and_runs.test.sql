begin;
select plan(31);
set local pgflow.now = '2030-01-01T00:00:00Z';

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
-- The time, in seconds after the beginning.
create function pg_temp.at(seconds numeric) returns void language sql as $$
  select set_config('pgflow.now', ('2030-01-01T00:00:00Z'::timestamptz + make_interval(secs => seconds::float8))::text, true)
$$;
create function pg_temp.seconds(at timestamptz) returns numeric return extract(epoch from at - '2030-01-01T00:00:00Z')::numeric(10, 2);
create function pg_temp.tick() returns int language sql as $$ select settled from pgflow.tick() $$;
create function pg_temp.alarms() returns text language sql as $$
  select string_agg(concat_ws(' ', ltrim(right(a.run_id::text, 3), '0'), a.step_slug, pg_temp.seconds(a.due_at)), ', ' order by a.due_at, a.run_id, a.step_slug)
  from pgflow.alarms a where a.kind = 'deadline'
$$;
create function pg_temp.run_is(n int) returns text
return (select concat_ws(' ', r.status, pg_temp.seconds(r.failed_at), r.error) from pgflow.runs r where r.run_id = pg_temp.run(n));
create function pg_temp.steps(n int) returns text
return (
  select string_agg(concat_ws(' ', ss.step_slug, ss.status, ss.error, (
    select string_agg(t.status, ' ' order by t.task_index) from pgflow.step_tasks t where (t.run_id, t.step_slug) = (ss.run_id, ss.step_slug)
  )), ', ' order by s.step_index)
  from pgflow.step_states ss join pgflow.steps s using (flow_slug, step_slug) where ss.run_id = pg_temp.run(n)
);

-- Without deadlines
select pgflow.create_flow('without'), pgflow.add_step('without', 'a'), pgflow.add_step('without', 'b', array['a'], step_type => 'map');
select pgflow.start_flow('without', '1', run_id => pg_temp.run(1));
select pgflow.complete_task(pg_temp.run(1), 'a', 0, '[1]'), pgflow.cancel_run(pg_temp.run(1)), pgflow.retry_run(pg_temp.run(1));
select is_empty('select from pgflow.alarms', 'a flow without deadlines has no alarms');

-- Of steps: roots, dependents, maps
select pgflow.create_flow('f', base_delay => 0), pgflow.add_step('f', 'a', options => '{"deadline": 60}');
select pgflow.add_step('f', 'b', array['a'], start_delay => 10, options => '{"deadline": 30}');
select pgflow.add_step('f', 'c', array['a'], step_type => 'map', options => '{"deadline": 40, "concurrency": 1}');
select pgflow.start_flow('f', '1', run_id => pg_temp.run(2));
select is(pg_temp.alarms(), '2 a 60.00', 'a root step has its deadline from when it starts');
select is((select step_slug from pgflow.claim_tasks(array['f'], 10, gen_random_uuid())), 'a', 'it is claimed as ever');
select is((select pg_temp.seconds(next_due_at) from pgflow.tick()), 60.00, 'the clock knows when to look');
select pg_temp.at(5);
select pgflow.complete_task(pg_temp.run(2), 'a', 0, '[1, 2]'), pgflow.tick(); -- which admits a task of the map
select is(pg_temp.alarms(), '2 b 35.00, 2 c 45.00, 2 a 60.00', 'others from when their deps are done, start delays included');
select pg_temp.at(34.9);
select is(pg_temp.tick(), 0, 'nothing ends before');
select pgflow.complete_task(pg_temp.run(2), 'c', 0, '1');
select pg_temp.at(35);
select is(pg_temp.tick(), 1, 'then one step');
select is(
  pg_temp.steps(2) || ': ' || pg_temp.run_is(2),
  'a completed completed, b failed step "b" has exceeded its deadline of 30 s cancelled, c cancelled completed cancelled: '
    || 'failed 35.00 step "b" has exceeded its deadline of 30 s',
  'fails, and its run with it'
);
select is((select count(*) from pgmq.q_f), 0::bigint, 'messages are archived');
-- A retry
select pg_temp.at(40);
select pgflow.retry_run(pg_temp.run(2)), pgflow.tick();
select is(pg_temp.alarms(), '2 c 45.00, 2 a 60.00, 2 b 70.00, 2 c 80.00', 'a retry begins new deadlines');
select pg_temp.at(62);
select is(pg_temp.tick() || ' ' || pg_temp.alarms(), '0 2 b 70.00, 2 c 80.00, 2 c 80.00', 'what an older alarm asks is looked at again then');
select pgflow.complete_task(pg_temp.run(2), 'b', 0, '1'), pgflow.complete_task(pg_temp.run(2), 'c', 1, '1');
select is(pg_temp.run_is(2), 'completed', 'a run that ends in time');
select pg_temp.at(70);
select is(pg_temp.tick() || coalesce(pg_temp.alarms(), ''), '0', 'leaves alarms that come in vain, and go with the first that is due');

-- when_exhausted
select pgflow.create_flow('skips');
select pgflow.add_step('skips', 'soft', when_exhausted => 'skip', step_type => 'map', options => '{"deadline": 60, "when_item_fails": "collect"}');
select pgflow.add_step('skips', 'after', array['soft']);
select pgflow.add_step('skips', 'hard', when_exhausted => 'skip-cascade', options => '{"deadline": 60}'), pgflow.add_step('skips', 'gone', array['hard']);
select pgflow.start_flow('skips', '[1, 2]', run_id => pg_temp.run(3));
select pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
  'run_id', pg_temp.run(3), 'step_slug', 'soft', 'task_index', 0, 'error', 'x', 'permanent', true
)));
select pg_temp.at(140);
select is(pg_temp.tick(), 2, 'several at once');
select is(
  pg_temp.steps(3),
  'soft skipped step "soft" has exceeded its deadline of 60 s failed skipped, after started queued, '
    || 'hard skipped step "hard" has exceeded its deadline of 60 s skipped, gone skipped',
  'are skipped, with or without those that depend on them'
);
select is(
  (select array_agg(distinct skip_reason) from pgflow.step_states where run_id = pg_temp.run(3) and error is not null),
  array['attempts_exhausted'], 'as where no attempt is left'
);

-- A retry that is due later, or that does not count
select pg_temp.at(200);
select pgflow.create_flow('busy', max_attempts => 1), pgflow.add_step('busy', 'a', options => '{"deadline": 60}');
select pgflow.start_flow('busy', '1', run_id => pg_temp.run(4));
select pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
  'run_id', pg_temp.run(4), 'step_slug', 'a', 'task_index', 0, 'error', 'busy', 'retry_delay', 86400, 'uncounted', true
)));
select is(pg_temp.steps(4), 'a started busy queued', 'a retry time may be later than the deadline');
select pg_temp.at(260);
select is(pg_temp.tick() || ' ' || pg_temp.run_is(4), '1 failed 260.00 step "a" has exceeded its deadline of 60 s', 'which ends it');

-- Of runs
select pg_temp.at(300);
select pgflow.create_flow('whole', options => '{"deadline": 100}'), pgflow.add_step('whole', 'a'), pgflow.add_step('whole', 'b', array['a']);
select pgflow.start_flow('whole', '1', run_id => pg_temp.run(n)) from generate_series(5, 6) n;
select pgflow.start_flow('whole', '1', run_id => pg_temp.run(7), delay => 50);
select pgflow.start_flow('whole', '1', run_id => pg_temp.run(7));
select is(pg_temp.alarms(), '5 400.00, 6 400.00, 7 450.00', 'a run has its deadline from when it begins, and once');
select pgflow.complete_task(pg_temp.run(5), 'a', 0, '1');
select pgflow.claim_tasks(array['whole'], 10, gen_random_uuid());
select pg_temp.at(350);
select pgflow.cancel_run(pg_temp.run(6)), pgflow.retry_run(pg_temp.run(6));
select pg_temp.at(400);
select is(pg_temp.tick(), 1, 'is ended then');
select is(pg_temp.run_is(5), 'failed 400.00 the run has exceeded its deadline of 100 s', 'it fails');
select is(pg_temp.steps(5), 'a completed completed, b cancelled cancelled', 'with what is open in it');
select is(
  (select array_agg(concat_ws(' ', type, step_slug) order by seq) from pgflow.run_events where run_id = pg_temp.run(5) and at >= '2030-01-01T00:06:40Z'),
  array['step:cancelled b', 'run:failed'], 'as the log says'
);
select is(pg_temp.alarms(), '6 450.00, 6 450.00, 7 450.00', 'one that was retried meanwhile has a new deadline');
select pgflow.retry_run(pg_temp.run(5));
select is(pg_temp.steps(5), 'a completed completed, b started queued', 'a run goes on where it ended');

-- Deadlines that are changed
update pgflow.flows set opt_deadline = 200 where flow_slug = 'whole';
select pg_temp.at(450);
select is(pg_temp.tick() || ' ' || pg_temp.alarms(), '0 5 500.00, 7 500.00, 6 550.00', 'a longer one holds for runs that go on');
update pgflow.flows set opt_deadline = 20 where flow_slug = 'whole';
select pg_temp.at(500);
select is((select settled from pgflow.tick(1)) || ' ' || pg_temp.alarms(), '1 7 500.00, 6 550.00', 'as many at a time as asked for; a shorter one from when it is looked at');
select is(pg_temp.run_is(5), 'failed 500.00 the run has exceeded its deadline of 20 s', 'the older first');
update pgflow.flows set opt_deadline = null where flow_slug = 'whole';
select pg_temp.at(550);
select is(pg_temp.tick() || coalesce(pg_temp.alarms(), ''), '0', 'none ends nothing');

-- A step of a run that ends with it
update pgflow.flows set opt_deadline = 60 where flow_slug = 'busy';
select pgflow.start_flow('busy', '1', run_id => pg_temp.run(8));
select pg_temp.at(700);
select is(pg_temp.tick() || ' ' || pg_temp.run_is(8), '1 failed 700.00 the run has exceeded its deadline of 60 s', 'a run ends before its steps');
select is(pg_temp.steps(8), 'a cancelled cancelled', 'which are cancelled');

select * from finish();
rollback;
