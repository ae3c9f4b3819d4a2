begin;
select plan(43);
set local pgflow.now = '2020-01-01 00:00+00';

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.states(n int) returns text
return (
  select string_agg(ss.step_slug || ' ' || ss.status, ', ' order by s.step_index)
  from pgflow.step_states ss join pgflow.steps s using (flow_slug, step_slug) where ss.run_id = pg_temp.run(n)
);
create function pg_temp.log(n int, after bigint) returns text[]
return array(
  select concat_ws(' ', e.type, e.step_slug) from pgflow.run_events e where e.run_id = pg_temp.run(n) and e.seq > after order by e.seq
);
create function pg_temp.result(n int, step text, attempt int, result jsonb, task_index int default 0) returns jsonb
return jsonb_build_object('run_id', pg_temp.run(n), 'step_slug', step, 'task_index', task_index, 'attempt', attempt) || result;

-- A failed run
select pgflow.create_flow('f', max_attempts => 2, base_delay => 0);
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'b');
select pgflow.add_step('f', 'c', array['a']);
select pgflow.add_step('f', 'd', array['b', 'c']);
select pgflow.add_step('f', 'opt', run_if => '{"run": 2}', when_unmet => 'skip');
select pgflow.start_flow('f', '1', run_id => pg_temp.run(1));
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(pg_temp.result(1, 'a', 1, '{"output": "kept"}'), pg_temp.result(1, 'b', 1, '{"error": "one"}')));
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(pg_temp.result(1, 'b', 2, '{"error": "two"}')));
select is(pg_temp.states(1), 'a completed, b failed, c cancelled, d cancelled, opt skipped', 'a run that has failed');
create temp table old_messages as select step_slug, message_id from pgflow.step_tasks where run_id = pg_temp.run(1);
create temp table last_event as select max(seq) as seq from pgflow.run_events where run_id = pg_temp.run(1);

set local pgflow.now = '2020-01-01 01:00+00';
create temp table answer as select * from pgflow.retry_run(pg_temp.run(1));
select results_eq(
  'select run_id, status, error, failed_at, cancelled_at, completed_at, started_at from answer',
  $$ values (pg_temp.run(1), 'started', null, null::timestamptz, null::timestamptz, null::timestamptz, '2020-01-01 00:00+00'::timestamptz) $$,
  'answers with the run, which goes on'
);
select results_eq('table answer', 'select * from pgflow.runs', 'which is its row');
select is(
  pg_temp.states(1), 'a completed, b started, c started, d created, opt skipped', 'failed and cancelled steps are open again, others stay'
);
select results_eq(
  $$ select step_slug, remaining_deps, initial_tasks, remaining_tasks, error, retries, retry_at, started_at, failed_at, output
     from pgflow.step_states where run_id = pg_temp.run(1) and step_slug in ('b', 'd') order by 1 $$,
  $$ values
    ('b', 0, 1, 1, null, 0, null::timestamptz, '2020-01-01 01:00+00'::timestamptz, null::timestamptz, null::jsonb),
    ('d', 2, null, null, null, 0, null, null, null, null) $$,
  'as if they were new'
);
select is((select output from pgflow.step_states where run_id = pg_temp.run(1) and step_slug = 'a'), '"kept"', 'a completed step keeps its output');
select is(
  pg_temp.log(1, (select seq from last_event)), array['run:retried', 'step:started b', 'step:started c'], 'the log goes on'
);
select results_eq(
  $$ select data, at from pgflow.run_events where run_id = pg_temp.run(1) and type = 'run:retried' $$,
  $$ values ('{"step_slugs": ["b", "c", "d"]}'::jsonb, '2020-01-01 01:00+00'::timestamptz) $$, 'and says which steps run again'
);
select results_eq(
  $$ select step_slug, status, attempts_count, attempts_before, error_message, queued_at, failed_at from pgflow.step_tasks
     where run_id = pg_temp.run(1) and step_slug <> 'a' order by 1 $$,
  $$ values ('b', 'queued', 2, 2, null, '2020-01-01 01:00+00'::timestamptz, null::timestamptz),
            ('c', 'queued', 1, 1, null, '2020-01-01 01:00+00', null) $$,
  'attempts go on where they were'
);
select results_eq(
  $$ select t.step_slug from pgflow.step_tasks t join pgmq.q_f q on q.msg_id = t.message_id where t.run_id = pg_temp.run(1) order by 1 $$,
  array['b', 'c'], 'open tasks have messages'
);
select is((select count(*) from pgmq.q_f), 2::bigint, 'and there are no others');
select is_empty(
  $$ select t.step_slug from pgflow.step_tasks t join old_messages using (step_slug, message_id) where t.step_slug <> 'a' $$,
  'which are new ones'
);

-- Late results of old attempts
create temp table states_before as select pg_temp.states(1) as states;
select is(
  (select array_agg(applied) from pgflow.settle_tasks(jsonb_build_array(
    pg_temp.result(1, 'b', 2, '{"output": "late"}'), pg_temp.result(1, 'c', 1, '{"output": "late"}'), pg_temp.result(1, 'b', 1, '{"error": "late"}')
  ))),
  array[false, false, false], 'a late result of an old attempt is stale'
);
create temp table claimed as select * from pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
select results_eq(
  'select step_slug, attempt, input from claimed order by 1',
  $$ values ('b', 3, '{"run": 1}'::jsonb), ('c', 2, '{"run": 1, "a": "kept"}') $$, 'numbers of attempts go on'
);
select is(
  (select array_agg(applied) from pgflow.settle_tasks(jsonb_build_array(
    pg_temp.result(1, 'b', 2, '{"output": "late"}'), pg_temp.result(1, 'c', 1, '{"error": "late"}')
  ))),
  array[false, false], 'also while a new attempt works'
);
select is(pg_temp.states(1), (select states from states_before), 'and changes nothing');

-- All attempts again
select pgflow.settle_tasks(jsonb_build_array(pg_temp.result(1, 'b', 3, '{"error": "three"}')));
select results_eq(
  $$ select status, retries, retry_at from pgflow.step_states where run_id = pg_temp.run(1) and step_slug = 'b' $$,
  $$ values ('started', 1, '2020-01-01 01:00+00'::timestamptz) $$, 'all attempts are available again'
);
select is((select attempt from pgflow.claim_tasks(array['f'], 100, gen_random_uuid())), 4, 'to the last one');
select pgflow.settle_tasks(jsonb_build_array(pg_temp.result(1, 'c', 2, '{"output": 3}'), pg_temp.result(1, 'b', 4, '{"error": "four"}')));
select is((select status || ' ' || error from pgflow.runs), 'failed four', 'then the run fails again');
select is(pg_temp.states(1), 'a completed, b failed, c completed, d cancelled, opt skipped', 'and keeps what has completed meanwhile');
select pgflow.retry_run(pg_temp.run(1));
select results_eq(
  $$ select step_slug, attempts_count, attempts_before from pgflow.step_tasks where run_id = pg_temp.run(1) and status = 'queued' $$,
  $$ values ('b', 4, 4) $$, 'it can be retried again'
);
select pgflow.complete_task(pg_temp.run(1), 'b', 0, '2');
select pgflow.complete_task(pg_temp.run(1), 'd', 0, '4');
select results_eq(
  $$ select status, output, error, failed_at from pgflow.runs $$,
  $$ values ('completed', '{"d": 4}'::jsonb, null, null::timestamptz) $$, 'to its end'
);
select is_empty(
  $$ select run_id from pgflow.run_events group by run_id having array_agg(seq order by seq) <> array(select generate_series(1, max(seq))) $$,
  'its log has no gaps'
);

-- The delay between attempts starts anew
select pgflow.create_flow('slow', max_attempts => 3, base_delay => 5), pgflow.add_step('slow', 'a');
select pgflow.start_flow('slow', '1', run_id => pg_temp.run(2));
select pgflow.claim_tasks(array['slow'], 1, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(pg_temp.result(2, 'a', 1, '{"error": "x", "permanent": true}')));
select pgflow.retry_run(pg_temp.run(2));
select pgflow.claim_tasks(array['slow'], 1, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(pg_temp.result(2, 'a', 2, '{"error": "y"}')));
select is((select retry_at from pgflow.step_states where run_id = pg_temp.run(2)), '2020-01-01 01:00:10+00', 'delays between attempts start anew, too');

-- A map: only what did not complete
select pgflow.create_flow('map', max_attempts => 1), pgflow.add_step('map', 'each', step_type => 'map'), pgflow.add_step('map', 'sum', array['each']);
select pgflow.start_flow('map', '["p", "q", "r", "s"]', run_id => pg_temp.run(3));
select pgflow.claim_tasks(array['map'], 3, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(
  pg_temp.result(3, 'each', 1, '{"error": "boom"}', 1), pg_temp.result(3, 'each', 1, '{"output": "P"}', 0)
));
select pgflow.retry_run(pg_temp.run(3));
select results_eq(
  $$ select task_index, status, input, output, attempts_count from pgflow.step_tasks where run_id = pg_temp.run(3) order by 1 $$,
  $$ values (0, 'completed', '"p"'::jsonb, '"P"'::jsonb, 1), (1, 'queued', '"q"', null, 1), (2, 'queued', '"r"', null, 1), (3, 'queued', '"s"', null, 0) $$,
  'completed items of a map are kept'
);
select results_eq(
  $$ select initial_tasks, remaining_tasks from pgflow.step_states where run_id = pg_temp.run(3) and step_slug = 'each' $$,
  $$ values (4, 3) $$, 'the others run again'
);
select results_eq(
  $$ select task_index, input, attempt from pgflow.claim_tasks(array['map'], 100, gen_random_uuid()) order by 1 $$,
  $$ values (1, '"q"'::jsonb, 2), (2, '"r"', 2), (3, '"s"', 1) $$, 'with their items'
);
select pgflow.settle_tasks(jsonb_build_array(
  pg_temp.result(3, 'each', 1, '{"output": "S"}', 3), pg_temp.result(3, 'each', 2, '{"output": "R"}', 2), pg_temp.result(3, 'each', 2, '{"output": "Q"}', 1)
));
select is((select output from pgflow.step_states where run_id = pg_temp.run(3) and step_slug = 'each'), '["P", "Q", "R", "S"]', 'and join the kept ones in order');

-- A cancelled run
select pgflow.start_flow('f', '1', run_id => pg_temp.run(4));
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
select pgflow.complete_task(pg_temp.run(4), 'a', 0, '1');
select pgflow.cancel_run(pg_temp.run(4), 'wait');
select is((select status || coalesce(error, '') from pgflow.retry_run(pg_temp.run(4))), 'started', 'a cancelled run goes on, too');
select is(pg_temp.states(4), 'a completed, b started, c started, d created, opt skipped', 'from where it was');

-- A run that fails again at once
select pgflow.create_flow('never'), pgflow.add_step('never', 'a', run_if => '{"run": 1}', when_unmet => 'fail');
select pgflow.start_flow('never', '2', run_id => pg_temp.run(5));
select is((select status from pgflow.retry_run(pg_temp.run(5))), 'failed', 'a run may fail again at once');
select is(pg_temp.log(5, 3), array['run:retried', 'step:failed a', 'run:failed'], 'its log says both');

-- Skips that cascade, in the batch that failed the run
select pgflow.create_flow('cascade', max_attempts => 1);
select pgflow.add_step('cascade', 'bad');
select pgflow.add_step('cascade', 'gone', when_exhausted => 'skip-cascade');
select pgflow.add_step('cascade', 'after', array['bad', 'gone']);
select pgflow.add_step('cascade', 'far', array['after']);
select pgflow.add_step('cascade', 'soft', when_exhausted => 'skip');
select pgflow.add_step('cascade', 'goes', array['soft']);
select pgflow.start_flow('cascade', '3', run_id => pg_temp.run(6));
select pgflow.claim_tasks(array['cascade'], 100, gen_random_uuid());
select pgflow.settle_tasks((
  select jsonb_agg(pg_temp.result(6, step, 1, '{"error": "boom"}')) from unnest(array['bad', 'gone', 'soft']) step
));
select is(
  pg_temp.states(6), 'bad failed, gone skipped, after cancelled, far cancelled, soft skipped, goes cancelled', 'steps skipped while the run failed'
);
select pgflow.retry_run(pg_temp.run(6));
select is(
  pg_temp.states(6), 'bad started, gone skipped, after skipped, far skipped, soft skipped, goes started',
  'a skip that cascades does so after a retry as well'
);
select pgflow.complete_task(pg_temp.run(6), 'bad', 0, '1'), pgflow.complete_task(pg_temp.run(6), 'goes', 0, '2');
select is((select output from pgflow.runs where run_id = pg_temp.run(6)), '{"goes": 2}', 'and the run ends');

select pgflow.create_flow('unmet');
select pgflow.add_step('unmet', 'bad', run_if => '{"run": 1}', when_unmet => 'fail');
select pgflow.add_step('unmet', 'gone', run_if => '{"run": 1}'), pgflow.add_step('unmet', 'after', array['gone']);
select pgflow.add_step('unmet', 'soft', run_if => '{"run": 1}', when_unmet => 'skip'), pgflow.add_step('unmet', 'goes', array['soft']);
select pgflow.start_flow('unmet', '2', run_id => pg_temp.run(8));
select is(pg_temp.states(8), 'bad failed, gone skipped, after cancelled, soft skipped, goes cancelled', 'conditions that are not met while the run fails');
select pgflow.retry_run(pg_temp.run(8));
select is(pg_temp.states(8), 'bad failed, gone skipped, after skipped, soft skipped, goes cancelled', 'a retry skips what depends on them');

-- What cannot be retried
select pgflow.start_flow('f', '1', run_id => pg_temp.run(7));
create temp table before as select (select count(*) from pgflow.run_events) as events, (select count(*) from pgmq.q_f) as messages;
select throws_ok(
  'select pgflow.retry_run(pg_temp.run(1))', 'PT409', 'run 10000000-0000-4000-8000-000000000001 cannot be retried: it is completed', 'a completed run'
);
select throws_ok(
  'select pgflow.retry_run(pg_temp.run(7))', 'PT409', 'run 10000000-0000-4000-8000-000000000007 cannot be retried: it is started', 'one that goes on'
);
select throws_ok('select pgflow.retry_run(pg_temp.run(9))', 'PT404', 'run 10000000-0000-4000-8000-000000000009 does not exist', 'no run');
select throws_ok('select pgflow.retry_run(null)', 'PT404', 'run null does not exist', 'null');
select results_eq(
  'select (select count(*) from pgflow.run_events), (select count(*) from pgmq.q_f)', 'table before', 'a refused call changes nothing'
);
select is_empty(
  $$ select t.run_id from pgflow.step_tasks t join pgflow.step_states ss using (run_id, step_slug)
     where t.status in ('queued', 'started') and ss.status <> 'started' $$,
  'no task of a closed step is open'
);

select * from finish();
rollback;
