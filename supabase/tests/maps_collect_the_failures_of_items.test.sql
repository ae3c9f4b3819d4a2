begin;
select plan(26);
set local pgflow.now = '2030-01-01T00:00:00Z';

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.settle(n int, results jsonb, step text default 'each') returns boolean[]
return (
  select array_agg(s.applied) from pgflow.settle_tasks((
    select jsonb_agg(jsonb_build_object(
      'run_id', pg_temp.run(n), 'step_slug', step, 'task_index', key::int, 'permanent', true
    ) || value) from jsonb_each(results)
  )) s
);
create function pg_temp.output(n int, step text default 'each') returns jsonb
return (select output from pgflow.step_states where run_id = pg_temp.run(n) and step_slug = step);
create function pg_temp.step(n int, step text default 'each') returns text
return (
  select concat_ws(' ', ss.status, ss.remaining_tasks || '/' || ss.initial_tasks, ss.error, ss.skip_reason)
  from pgflow.step_states ss where ss.run_id = pg_temp.run(n) and ss.step_slug = step
);
create function pg_temp.run_is(n int) returns text
return (select concat_ws(' ', status, error) from pgflow.runs where run_id = pg_temp.run(n));
create function pg_temp.tasks(n int, step text default 'each') returns text
return (
  select string_agg(concat_ws(' ', t.status, t.attempts_count - t.attempts_before, t.error_message), ', ' order by t.task_index)
  from pgflow.step_tasks t where t.run_id = pg_temp.run(n) and t.step_slug = step
);
-- A flow whose map, followed by a step, tolerates so much.
create function pg_temp.flow(slug text, tolerate_count int default null, tolerate_share numeric default null, when_exhausted text default 'fail')
returns void language sql as $$
  select pgflow.create_flow(slug, max_attempts => 1, base_delay => 0);
  select pgflow.add_step(slug, 'each', step_type => 'map', when_exhausted => flow.when_exhausted, options => jsonb_build_object(
    'when_item_fails', 'collect', 'tolerate_count', flow.tolerate_count, 'tolerate_share', flow.tolerate_share
  ));
  select pgflow.add_step(slug, 'next', array['each']);
$$;
create function pg_temp.start(n int, slug text, items int default 4) returns void language sql as $$
  select pgflow.start_flow(slug, (select coalesce(jsonb_agg(i), '[]') from generate_series(1, items) i), run_id => pg_temp.run(n))
$$;

-- Any number of failures
select pg_temp.flow('any');
select pg_temp.start(1, 'any');
select pg_temp.settle(1, '{"0": {"output": null}, "2": {"error": "boom"}}');
select is(pg_temp.step(1), 'started 2/4', 'an item that fails for good is done, as one that completes');
select is(pg_temp.tasks(1), 'completed 0, queued 0, failed 1 boom, queued 0', 'its task keeps the error');
select is((select progress from pgflow.step_states where run_id = pg_temp.run(1) and step_slug = 'each'), '{"done": 2, "total": 4}', 'progress counts it');
select is(pg_temp.settle(1, '{"2": {"output": 1}}'), array[false], 'a later result is stale');
select pgflow.fail_task(pg_temp.run(1), 'each', 1, 'by hand');
select pg_temp.settle(1, '{"3": {"output": {"n": 1}}}');
select is(
  pg_temp.output(1),
  '[{"status": "completed", "value": null}, {"status": "failed", "error": "by hand"}, {"status": "failed", "error": "boom"}, {"status": "completed", "value": {"n": 1}}]',
  'the map completes with what became of each item, in their order'
);
select is(pg_temp.step(1) || ', ' || pg_temp.step(1, 'next'), 'completed 0/4, started 1/1', 'and the run goes on');
select is(
  (select array_agg(type order by seq) from pgflow.run_events where run_id = pg_temp.run(1) and step_slug = 'each'),
  array['step:started', 'step:progress', 'step:progress', 'step:completed'], 'as the log says'
);
select is((select count(*) from pgmq.q_any), 1::bigint, 'messages of failed items are archived');
select pg_temp.start(2, 'any', 2);
select pg_temp.settle(2, '{"0": {"error": "x"}, "1": {"error": "y"}}');
select is(pg_temp.output(2), '[{"status": "failed", "error": "x"}, {"status": "failed", "error": "y"}]', 'all may fail, in one batch too');
select pg_temp.start(3, 'any', 0);
select is(pg_temp.output(3), '[]', 'none of none fails');

-- Attempts are used up first; the last may end with its lease
update pgflow.flows set opt_max_attempts = 2 where flow_slug = 'any';
select pg_temp.start(4, 'any', 2);
select pg_temp.settle(4, '{"0": {"error": "one", "permanent": false}, "1": {"error": "two"}}');
select is(pg_temp.step(4) || ': ' || pg_temp.tasks(4), 'started 1/2 one: queued 1 one, failed 1 two', 'beside one that failed another is tried again');
select is((select retries from pgflow.step_states where run_id = pg_temp.run(4) and step_slug = 'each'), 1, 'which is a retry of the step');
update pgmq.q_any set vt = clock_timestamp() - interval '1 second';
select pgflow.claim_tasks(array['any'], 100, gen_random_uuid());
update pgmq.q_any set vt = clock_timestamp() - interval '1 second';
select pgflow.claim_tasks(array['any'], 100, gen_random_uuid());
select is(
  pg_temp.output(4), '[{"status": "failed", "error": "lease expired: the worker was lost"}, {"status": "failed", "error": "two"}]',
  'an item whose worker was lost in its last attempt has failed'
);
update pgflow.flows set opt_max_attempts = 1 where flow_slug = 'any';

-- A number of failures, or a share of all items
select pg_temp.flow('one', tolerate_count => 1), pg_temp.flow('half', tolerate_share => 0.5);
select pg_temp.flow('none', tolerate_count => 0, when_exhausted => 'skip'), pg_temp.flow('cascade', tolerate_share => 0, when_exhausted => 'skip-cascade');
select pg_temp.start(5, 'one'), pg_temp.start(6, 'half', 5), pg_temp.start(7, 'none'), pg_temp.start(8, 'cascade');
select pg_temp.settle(n, '{"3": {"error": "first"}}') from unnest(array[5, 6]) n;
select pg_temp.settle(6, '{"2": {"error": "second"}}');
select is(pg_temp.step(5) || ', ' || pg_temp.step(6), 'started 3/4, started 3/5', 'as many as are tolerated');
set local pgflow.now = '2030-01-01T00:01:00Z';
select pg_temp.settle(n, '{"1": {"output": 1}, "0": {"error": "later"}}') from unnest(array[5, 6, 7, 8]) n;
select is(
  pg_temp.run_is(5) || '. ' || pg_temp.run_is(6),
  'failed step "each" failed: 2 of its 4 items failed, and it tolerates 1; the first error: first. '
    || 'failed step "each" failed: 3 of its 5 items failed, and it tolerates 2; the first error: second',
  'one more fails the step and its run, and says of how many, and why'
);
select is(pg_temp.tasks(5), 'failed 1 later, completed 0, cancelled 0, failed 1 first', 'what is open is closed');
select is(
  pg_temp.step(7) || ', ' || pg_temp.step(7, 'next') || ', ' || pg_temp.run_is(7),
  'skipped 4/4 step "each" failed: 1 of its 4 items failed, and it tolerates 0; the first error: later attempts_exhausted, started 1/1, started',
  'when_exhausted says what becomes of the step'
);
select is(pg_temp.step(8, 'next') || ', ' || pg_temp.run_is(8), 'skipped dep_skipped, completed', 'and of those that depend on it');

-- The last item is one too many
select pg_temp.start(9, 'one', 2);
select pg_temp.settle(9, '{"0": {"error": "a"}, "1": {"error": "b"}}');
select is(pg_temp.step(9), 'failed 2/2 step "each" failed: 2 of its 2 items failed, and it tolerates 1; the first error: a', 'although nothing is left to do');

-- A retry
select pgflow.retry_run(pg_temp.run(5));
select is(pg_temp.tasks(5) || ': ' || pg_temp.step(5), 'queued 0, completed 0, queued 0, queued 0: started 3/4', 'only completed items are kept');
select pg_temp.settle(5, '{"0": {"error": "again"}, "2": {"output": 3}, "3": {"output": 4}}');
select is(
  pg_temp.output(5),
  '[{"status": "failed", "error": "again"}, {"status": "completed", "value": 1}, {"status": "completed", "value": 3}, {"status": "completed", "value": 4}]',
  'and joined by the others; failures count anew'
);
select pgflow.fail_task(pg_temp.run(5), 'next', 0, 'elsewhere');
select is(pg_temp.run_is(5), 'failed elsewhere', 'a run that fails later');
select pgflow.retry_run(pg_temp.run(5));
select is(pg_temp.step(5) || ', ' || pg_temp.step(5, 'next'), 'completed 0/4, started 1/1', 'keeps the map with its failures');

-- Closed while items have failed
select pg_temp.start(10, 'any');
select pg_temp.settle(10, '{"0": {"error": "x"}, "1": {"output": 1}}');
select pgflow.cancel_run(pg_temp.run(10));
select is(pg_temp.tasks(10), 'failed 1 x, completed 0, cancelled 0, cancelled 0', 'a cancelled map keeps what it has');
select pgflow.retry_run(pg_temp.run(10));
select is(pg_temp.tasks(10) || ': ' || pg_temp.step(10), 'queued 0, completed 0, queued 0, queued 0: started 3/4', 'and does the rest when its run is retried');
select pg_temp.settle(10, '{"0": {"output": 0}, "2": {"output": 2}, "3": {"output": 3}}');
select is(pg_temp.output(10) @> '[{"status": "failed"}]', false, 'without failures all have values');

select * from finish();
rollback;
