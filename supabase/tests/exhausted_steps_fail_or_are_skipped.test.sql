begin;
select plan(28);
set local pgflow.now = '2020-01-01 00:00+00';

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.states(n int) returns text
return (
  select string_agg(ss.step_slug || ' ' || ss.status, ', ' order by s.step_index)
  from pgflow.step_states ss join pgflow.steps s using (flow_slug, step_slug) where ss.run_id = pg_temp.run(n)
);
create function pg_temp.result(n int, step text, task_index int, result jsonb) returns jsonb
return jsonb_build_object('run_id', pg_temp.run(n), 'step_slug', step, 'task_index', task_index, 'attempt', 1) || result;

-- A flow for each way, with a step `a` that two others wait for.
select pgflow.create_flow(replace(way, '-', '_'), max_attempts => 3, base_delay => 0),
       pgflow.add_step(replace(way, '-', '_'), 'a', when_exhausted => way),
       pgflow.add_step(replace(way, '-', '_'), 'b', array['a']),
       pgflow.add_step(replace(way, '-', '_'), 'c', array['b']),
       pgflow.add_step(replace(way, '-', '_'), 'other')
from unnest(array['fail', 'skip', 'skip-cascade']) way;
select pgflow.start_flow(slug, '1', run_id => pg_temp.run(n::int))
from unnest(array['fail', 'skip', 'skip_cascade']) with ordinality flows (slug, n);

select pgflow.fail_task(pg_temp.run(n), 'a', 0, 'first') from generate_series(1, 3) n;
select is(pg_temp.states(n), 'a started, b created, c created, other started', 'while attempts are left the step goes on')
from generate_series(1, 3) n;
select is((select attempts_count from pgflow.step_tasks where run_id = pg_temp.run(1) and step_slug = 'a'), 1, 'unclaimed, an attempt is counted');
select pgflow.claim_tasks(array['fail', 'skip', 'skip_cascade'], 100, gen_random_uuid());
select pgflow.fail_task(pg_temp.run(n), 'a', 0, 'second') from generate_series(1, 3) n;
select pgflow.claim_tasks(array['fail', 'skip', 'skip_cascade'], 100, gen_random_uuid());
select pgflow.fail_task(pg_temp.run(n), 'a', 0, 'the last') from generate_series(1, 3) n;
select is(pg_temp.states(1), 'a failed, b cancelled, c cancelled, other cancelled', 'fail: the run fails');
select is(pg_temp.states(2), 'a skipped, b started, c created, other started', 'skip: dependents run');
select is(pg_temp.states(3), 'a skipped, b skipped, c skipped, other started', 'skip-cascade: dependents are skipped too');
select results_eq(
  $$ select run_id, status, error from pgflow.runs order by run_id $$,
  $$ values (pg_temp.run(1), 'failed', 'the last'), (pg_temp.run(2), 'started', null), (pg_temp.run(3), 'started', null) $$,
  'only the first run ends'
);
select results_eq(
  $$ select status, error, skip_reason, skipped_at, started_at, output from pgflow.step_states
     where run_id = pg_temp.run(2) and step_slug = 'a' $$,
  $$ values ('skipped', 'the last', 'attempts_exhausted', '2020-01-01 00:00+00'::timestamptz, '2020-01-01 00:00+00'::timestamptz, null::jsonb) $$,
  'the step keeps its error and says why it was skipped'
);
select results_eq(
  $$ select data from pgflow.run_events where run_id = pg_temp.run(3) and type = 'step:skipped' order by seq $$,
  $$ values ('{"skip_reason": "attempts_exhausted", "error": "the last"}'::jsonb),
            ('{"skip_reason": "dep_skipped", "error": null}'), ('{"skip_reason": "dep_skipped", "error": null}') $$,
  'so do the events'
);
select results_eq(
  $$ select status, error_message from pgflow.step_tasks where run_id = pg_temp.run(2) and step_slug = 'a' $$,
  $$ values ('failed', 'the last') $$, 'the task has failed'
);
select results_eq(
  $$ select t.step_slug from pgflow.step_tasks t join pgmq.q_skip q on q.msg_id = t.message_id
     where t.flow_slug = 'skip' order by 1 $$,
  array['b', 'other'], 'its message is archived'
);
select is(
  (select input from pgflow.claim_tasks(array['skip'], 100, gen_random_uuid()) where step_slug = 'b'), '{"run": 1}'::jsonb,
  'a dependent runs without its key'
);
select pgflow.complete_task(pg_temp.run(3), 'other', 0, '9');
select is((select output from pgflow.runs where run_id = pg_temp.run(3)), '{"other": 9}', 'the run ends with what is left');

-- A permanent failure
select pgflow.start_flow('skip', '1', run_id => pg_temp.run(4));
select pgflow.claim_tasks(array['skip'], 100, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(pg_temp.result(4, 'a', 0, '{"error": "never", "permanent": true}')));
select results_eq(
  $$ select status, error, skip_reason from pgflow.step_states where run_id = pg_temp.run(4) and step_slug = 'a' $$,
  $$ values ('skipped', 'never', 'attempts_exhausted') $$, 'a permanent failure leaves no attempts'
);

-- A lost worker
select pgflow.create_flow('lost', max_attempts => 1), pgflow.add_step('lost', 'a', when_exhausted => 'skip');
select pgflow.start_flow('lost', '1', run_id => pg_temp.run(5));
select pgflow.claim_tasks(array['lost'], 1, gen_random_uuid());
update pgmq.q_lost set vt = clock_timestamp() - interval '1 second';
select pgflow.claim_tasks(array['lost'], 1, gen_random_uuid());
select results_eq(
  $$ select r.status, r.output, ss.status, ss.skip_reason, ss.error from pgflow.runs r join pgflow.step_states ss using (run_id)
     where run_id = pg_temp.run(5) $$,
  $$ values ('completed', '{}'::jsonb, 'skipped', 'attempts_exhausted', 'lease expired: the worker was lost') $$,
  'a task that is lost with its last attempt skips its step'
);

-- Maps
select pgflow.create_flow('map', max_attempts => 1), pgflow.add_step('map', 'each', step_type => 'map', when_exhausted => 'skip');
select pgflow.add_step('map', 'next', array['each']), pgflow.add_step('map', 'over', array['each'], step_type => 'map');
select pgflow.start_flow('map', '[0, 1, 2, 3, 4]', run_id => pg_temp.run(6));
select pgflow.claim_tasks(array['map'], 4, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(
  pg_temp.result(6, 'each', 2, '{"output": 2}'), pg_temp.result(6, 'each', 1, '{"error": "boom"}'),
  pg_temp.result(6, 'each', 0, '{"error": "bang"}')
));
select is(pg_temp.states(6), 'each skipped, next started, over completed', 'one item skips the map, dependents run');
select results_eq(
  $$ select task_index, status, error_message from pgflow.step_tasks where run_id = pg_temp.run(6) and step_slug = 'each' order by 1 $$,
  $$ values (0, 'failed', 'bang'), (1, 'failed', 'boom'), (2, 'completed', null), (3, 'skipped', null), (4, 'skipped', null) $$,
  'its open tasks are skipped'
);
select results_eq(
  $$ select t.step_slug from pgmq.q_map q join pgflow.step_tasks t on t.message_id = q.msg_id and t.flow_slug = 'map' $$,
  array['next'], 'their messages are archived'
);
select results_eq(
  $$ select error, skip_reason, output from pgflow.step_states where run_id = pg_temp.run(6) and step_slug = 'each' $$,
  $$ values ('bang', 'attempts_exhausted', null::jsonb) $$, 'the map keeps an error'
);
select is(
  (select array_agg(applied) from pgflow.settle_tasks(jsonb_build_array(pg_temp.result(6, 'each', 3, '{"output": 3}')))),
  array[false], 'a sibling''s result comes too late'
);

-- The last item completes in the batch in which another one is exhausted
select pgflow.start_flow('map', '[0, 1]', run_id => pg_temp.run(7));
select pgflow.claim_tasks(array['map'], 100, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(
  pg_temp.result(7, 'each', 0, '{"output": 0}'), pg_temp.result(7, 'each', 1, '{"error": "boom"}')
));
select is(pg_temp.states(7), 'each skipped, next started, over completed', 'a failure outdoes what completes beside it');

-- One item is exhausted in the batch in which another one would be retried
select pgflow.create_flow('retrying', base_delay => 0), pgflow.add_step('retrying', 'each', step_type => 'map', when_exhausted => 'skip');
select pgflow.start_flow('retrying', '[0, 1]', run_id => pg_temp.run(9));
select pgflow.claim_tasks(array['retrying'], 100, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(
  pg_temp.result(9, 'each', 0, '{"error": "retry"}'), pg_temp.result(9, 'each', 1, '{"error": "never", "permanent": true}')
));
select results_eq(
  $$ select t.status, t.error_message, ss.status, ss.error from pgflow.step_tasks t join pgflow.step_states ss using (run_id, step_slug)
     where run_id = pg_temp.run(9) order by t.task_index $$,
  $$ values ('skipped', 'retry', 'skipped', 'never'), ('failed', 'never', 'skipped', 'never') $$, 'an item that waits for its retry is skipped'
);
select is_empty('select * from pgmq.q_retrying', 'so is its message');
select is_empty(
  $$ select * from pgflow.run_events where run_id = pg_temp.run(9) and type = 'step:retrying' $$, 'and nothing says that it is retried'
);

-- Exhausted in a run that fails in the same batch
select pgflow.create_flow('both', max_attempts => 1), pgflow.add_step('both', 'soft', when_exhausted => 'skip-cascade');
select pgflow.add_step('both', 'hard'), pgflow.add_step('both', 'after', array['soft']);
select pgflow.start_flow('both', '1', run_id => pg_temp.run(8));
select pgflow.claim_tasks(array['both'], 100, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(
  pg_temp.result(8, 'soft', 0, '{"error": "soft"}'), pg_temp.result(8, 'hard', 0, '{"error": "hard"}')
));
select is(pg_temp.states(8), 'soft skipped, hard failed, after cancelled', 'a step skipped while its run fails');
select is((select error from pgflow.runs where run_id = pg_temp.run(8)), 'hard', 'is not why');

-- All of it
select is_empty(
  $$ select t.run_id, t.step_slug, t.task_index from pgflow.step_tasks t join pgflow.step_states ss using (run_id, step_slug)
     where t.status in ('queued', 'started') and ss.status <> 'started' $$,
  'no task of a closed step is open'
);

select * from finish();
rollback;
