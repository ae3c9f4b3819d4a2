begin;
select plan(50);
set local pgflow.now = '2030-01-01T00:00:00Z';

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.flow(slug text, options jsonb, when_exhausted text default 'fail') returns void language sql as $$
  select pgflow.create_flow(slug, max_attempts => 2, base_delay => 0);
  select pgflow.add_step(slug, 'loop', step_type => 'loop', map_path => 'start', when_exhausted => flow.when_exhausted, options => flow.options);
  select pgflow.add_step(slug, 'next', array['loop']);
$$;
create function pg_temp.start(n int, slug text, state jsonb default '0') returns void language sql as $$
  select pgflow.start_flow(slug, jsonb_build_object('start', state), run_id => pg_temp.run(n))
$$;
create function pg_temp.settle(n int, turn int, result jsonb) returns boolean
return (
  select s.applied from pgflow.settle_tasks(jsonb_build_array(
    jsonb_build_object('run_id', pg_temp.run(n), 'step_slug', 'loop', 'task_index', turn) || result
  )) s
);
create function pg_temp.turn(n int, turn int, output jsonb) returns boolean
return pg_temp.settle(n, turn, jsonb_build_object('output', output));
create function pg_temp.step(n int, step text default 'loop') returns text
return (
  select concat_ws(' ', ss.status, ss.remaining_tasks || '/' || ss.initial_tasks, ss.waits_for, ss.output, ss.error, ss.skip_reason)
  from pgflow.step_states ss where ss.run_id = pg_temp.run(n) and ss.step_slug = step
);
create function pg_temp.turns(n int) returns text
return (
  select string_agg(concat_ws(' ', t.task_index, t.status, t.input::text || coalesce('>' || t.output::text, '')), ', ' order by t.task_index)
  from pgflow.step_tasks t where t.run_id = pg_temp.run(n) and t.step_slug = 'loop'
);
create function pg_temp.log(n int) returns text
return (
  select string_agg(concat_ws(' ', replace(e.type, 'step:', ''), e.data), ', ' order by e.seq)
  from pgflow.run_events e where e.run_id = pg_temp.run(n) and e.step_slug = 'loop'
);
create function pg_temp.run_is(n int) returns text
return (select concat_ws(' ', status, output, error) from pgflow.runs where run_id = pg_temp.run(n));
create function pg_temp.claim(slug text) returns text
language plpgsql as $$
begin
  return (
    select string_agg(concat_ws(' ', c.step_slug, c.task_index, c.input, 'attempt ' || c.attempt), ', ')
    from pgflow.claim_tasks(array[slug], 10, gen_random_uuid()) c
  );
end
$$;

-- Until an output contains what it says
select pg_temp.flow('counts', '{"loop_until": {"done": true}, "loop_max": 4}');
select pg_temp.start(1, 'counts', '{"n": 0}');
select is(pg_temp.claim('counts'), 'loop 0 {"n": 0} attempt 1', 'the first turn gets what is at its path');
select pg_temp.turn(1, 0, '{"n": 1}');
select is(pg_temp.step(1), 'started 1/2', 'after its turn a loop goes on');
select is(pg_temp.claim('counts'), 'loop 1 {"n": 1} attempt 1', 'the next turn gets what the last one has returned');
select is(pg_temp.turn(1, 0, '{"n": 7}'), false, 'a turn is settled once');
select is(pg_temp.turn(1, 2, '{"n": 7}'), false, 'and not before it begins');
select pg_temp.turn(1, 1, '{"n": 2, "done": true}');
select is(pg_temp.step(1), 'completed 0/2 {"n": 2, "done": true}', 'it completes with the output of its last turn');
select is(pg_temp.turns(1), '0 completed {"n": 0}>{"n": 1}, 1 completed {"n": 1}>{"n": 2, "done": true}', 'of which each is kept');
select is(pg_temp.log(1), 'started, progress {"progress": {"done": 1, "total": 4}, "initial_tasks": 2}, completed', 'each but the last is an event');
select is(pg_temp.claim('counts'), 'next 0 {"run": {"start": {"n": 0}}, "loop": {"n": 2, "done": true}} attempt 1', 'and the run goes on');
select is((select count(*) from pgmq.q_counts), 1::bigint, 'messages of turns are archived');
select pgflow.complete_task(pg_temp.run(1), 'next', 0, 'null');
select pg_temp.start(2, 'counts');
select pg_temp.turn(2, 0, '{"done": true}');
select is(pg_temp.log(2), 'started, completed', 'a first turn may be the last');
select pgflow.complete_task(pg_temp.run(2), 'next', 0, 'null');

-- Any JSON is a state
select pg_temp.flow('any', '{"loop_until": 0}');
select pgflow.start_flow('any', '{}', run_id => pg_temp.run(3));
select is(pg_temp.turns(3), '0 queued null', 'what is missing at the path is null');
select pg_temp.turn(3, 0, 'null');
select pg_temp.turn(3, 1, 'false');
select pg_temp.turn(3, 2, '""');
select pg_temp.turn(3, 3, '[]');
select pg_temp.turn(3, 4, '0');
select is(
  pg_temp.turns(3),
  '0 completed null>null, 1 completed null>false, 2 completed false>"", 3 completed "">[], 4 completed []>0', 'null, false and "" go on'
);
select is(pg_temp.step(3), 'completed 0/5 0', 'and 0 ends it where it says so');

-- As many turns as it has
select pg_temp.start(4, 'counts');
select pg_temp.turn(4, n, to_jsonb(n)) from generate_series(0, 3) n;
select is(pg_temp.run_is(4), 'failed step "loop" has not ended after 4 turns', 'a loop that does not end fails');
select is(pg_temp.step(4, 'next'), 'cancelled', 'and its run with it');
select pg_temp.flow('stops', '{"loop_max": 2, "when_exceeded": "complete"}');
select pg_temp.start(5, 'stops');
select pg_temp.turn(5, 0, 'null');
select pg_temp.turn(5, 1, '"enough"');
select is(pg_temp.step(5), 'completed 0/2 "enough"', 'or completes, where it may take that many');
select pg_temp.flow('gives_up', '{"loop_until": 1, "loop_max": 1}', when_exhausted => 'skip');
select pg_temp.start(6, 'gives_up');
select pg_temp.turn(6, 0, '0');
select is(pg_temp.step(6) || ', ' || pg_temp.step(6, 'next'),
  'skipped 1/1 step "loop" has not ended after 1 turn attempts_exhausted, started 1/1', 'or is skipped, as when_exhausted says');
select is(pg_temp.claim('gives_up'), 'next 0 {"run": {"start": 0}} attempt 1', 'then its dependents run without it');

-- Each turn has its attempts
select pg_temp.start(7, 'counts');
select pg_temp.turn(7, 0, '1');
select pg_temp.settle(7, 1, '{"error": "boom"}');
select is(pg_temp.step(7), 'started 1/2 boom', 'a turn whose attempt fails is tried again');
update pgmq.q_counts set vt = clock_timestamp() - interval '1 second';
select is(pg_temp.claim('counts'), 'loop 1 1 attempt 2', 'with the same state');
select pg_temp.turn(7, 1, '2');
select pg_temp.settle(7, 2, '{"error": "bang"}');
select is(pg_temp.step(7), 'started 1/3 bang', 'the next one has all attempts');
select pg_temp.settle(7, 2, '{"error": "the end"}');
select is(pg_temp.run_is(7), 'failed the end', 'and one that has none left fails the step');

-- A run that is retried goes on with the turn that failed
select pgflow.retry_run(pg_temp.run(7));
select is(pg_temp.step(7), 'started 1/3', 'turns that have completed are kept');
select is(pg_temp.turns(7), '0 completed 0>1, 1 completed 1>2, 2 queued 2', 'the one that failed is tried again');
select pg_temp.turn(7, 2, '3');
select is(
  (select progress from pgflow.step_states where run_id = pg_temp.run(7) and step_slug = 'loop'), '{"done": 3, "total": 4}', 'turns are counted from the first one on'
);
select pgflow.cancel_run(pg_temp.run(7));
select is(pg_temp.turns(7), '0 completed 0>1, 1 completed 1>2, 2 completed 2>3, 3 cancelled 3', 'a loop can be cancelled between its turns');
select pgflow.retry_run(pg_temp.run(7));
select pg_temp.turn(7, 3, '{"done": true}');
select is(pg_temp.step(7), 'completed 0/4 {"done": true}', 'and goes on, too');
select pgflow.retry_run(pg_temp.run(4));
select is(pg_temp.run_is(4) || ': ' || pg_temp.log(4),
  'failed step "loop" has not ended after 4 turns: started, progress {"progress": {"done": 1, "total": 4}, "initial_tasks": 2}, '
  'progress {"progress": {"done": 2, "total": 4}, "initial_tasks": 3}, progress {"progress": {"done": 3, "total": 4}, "initial_tasks": 4}, '
  'failed {"error": "step \"loop\" has not ended after 4 turns"}, failed {"error": "step \"loop\" has not ended after 4 turns"}',
  'one that has taken all its turns fails again'
);
update pgflow.steps set loop_max = 6 where flow_slug = 'counts' and loop_max is not null;
select pgflow.retry_run(pg_temp.run(4));
select is(pg_temp.step(4), 'started 1/5', 'until it may take more');
select pgflow.fail_task(pg_temp.run(4), 'loop', 4, 'by hand');
update pgflow.steps set loop_max = 2 where flow_slug = 'counts' and loop_max is not null;
select pg_temp.turn(4, 4, '4');
select is(pg_temp.run_is(4), 'failed step "loop" has not ended after 5 turns', 'or less');
update pgflow.steps set loop_max = 3, when_exceeded = 'complete' where flow_slug = 'counts' and loop_max is not null;
select pgflow.retry_run(pg_temp.run(4));
select is(pg_temp.step(4), 'completed 0/0 4', 'of those that it has taken the last one has its output');

-- Delays, leases and deadlines
select pg_temp.flow('slow', '{"loop_until": 1, "start_delay": 60, "deadline": 100}');
select pg_temp.start(8, 'slow');
select is(pg_temp.claim('slow'), null, 'a start delay holds before the first turn');
update pgmq.q_slow set vt = clock_timestamp() - interval '1 second';
select is(pg_temp.claim('slow'), 'loop 0 0 attempt 1', 'which is claimed after it');
set local pgflow.now = '2030-01-01T00:01:00Z';
select pg_temp.turn(8, 0, '0');
select ok(vt > clock_timestamp() + interval '50 seconds', 'and before each other one') from pgmq.q_slow;
select is((select count(*) from pgflow.alarms where run_id = pg_temp.run(8)), 1::bigint, 'the deadline is that of the whole loop');
set local pgflow.now = '2030-01-01T00:01:41Z';
select pgflow.tick();
select is(pg_temp.run_is(8), 'failed step "loop" has exceeded its deadline of 100 s', 'which ends it between turns');
select pg_temp.flow('lost', '{"loop_until": 1}');
select pg_temp.start(9, 'lost');
select pg_temp.turn(9, 0, '5');
select pg_temp.claim('lost');
update pgmq.q_lost set vt = clock_timestamp() - interval '1 second';
select is(pg_temp.claim('lost'), 'loop 1 5 attempt 2', 'a turn whose worker is lost is claimed again');
update pgmq.q_lost set vt = clock_timestamp() - interval '1 second';
select pg_temp.claim('lost');
select is(pg_temp.run_is(9), 'failed lease expired: the worker was lost', 'and fails after its last attempt');

-- Limits
select pgflow.create_flow('limited', base_delay => 0);
select pgflow.add_step('limited', 'loop', step_type => 'loop', options => '{"loop_until": 1, "limits": [{"limit_slug": "one", "running": 1}]}');
select pgflow.start_flow('limited', '"a"', run_id => pg_temp.run(10));
select pgflow.start_flow('limited', '"b"', run_id => pg_temp.run(11));
select is(pg_temp.claim('limited'), 'loop 0 "a" attempt 1', 'a turn of a limited loop needs a slot');
select pg_temp.turn(10, 0, '"a again"');
select is(pg_temp.step(10), 'started 1/2 slot', 'which it gives up for the next one');
select is(pg_temp.claim('limited'), 'loop 0 "b" attempt 1', 'so that others have their turn');
select pg_temp.turn(11, 0, '1');
select is(pg_temp.claim('limited'), 'loop 1 "a again" attempt 1', 'and it has its own');
select pg_temp.turn(10, 1, '1');
select is(pg_temp.log(10),
  'started {"due_at": null, "waits_for": "slot", "initial_tasks": 1}, admitted {"waits_for": null}, '
  'progress {"progress": {"done": 1, "total": 100}, "waits_for": "slot", "initial_tasks": 2}, admitted {"waits_for": null}, completed',
  'as its log says'
);
select pgflow.start_flow('limited', '"c"', run_id => pg_temp.run(20));
select pg_temp.claim('limited');
select pg_temp.settle(20, 0, '{"error": "broken"}');
select is(pg_temp.step(20), 'started 1/1 slot broken', 'another attempt of a turn needs a slot, too');
select pg_temp.claim('limited');
select is(pg_temp.step(20), 'started 1/1 broken', 'and gets one');

-- In batches
select is(
  (select count(*) from pgflow.start_flows('any', to_jsonb(array_fill('{"start": 7}'::jsonb, array[50])))), 50::bigint, 'many loops'
);
select pgflow.settle_tasks((
  select jsonb_agg(jsonb_build_object('run_id', t.run_id, 'step_slug', t.step_slug, 'task_index', t.task_index, 'output', t.n % 2))
  from (select *, row_number() over (order by run_id) as n from pgflow.step_tasks where flow_slug = 'any' and status = 'queued') t
));
select is(
  (select string_agg(format('%s %s: %s', step_slug, status, count), ', ' order by step_slug, status) from (
    select ss.step_slug, ss.status, count(*) from pgflow.step_states ss join pgflow.step_tasks t using (run_id, step_slug)
    where ss.flow_slug = 'any' and ss.run_id <> pg_temp.run(3) and t.status = 'queued' group by 1, 2
  ) s),
  'loop started: 25, next started: 25', 'turn and end in one batch'
);

-- Conditions
select pgflow.create_flow('asked');
select pgflow.add_step('asked', 'loop', step_type => 'loop', run_if => '{"run": {"go": true}}', when_unmet => 'skip', options => '{"loop_until": 1}');
select pgflow.start_flow('asked', '{"go": false}', run_id => pg_temp.run(12));
select is(pg_temp.step(12), 'skipped condition_unmet', 'a loop has conditions like other steps');
select pgflow.start_flow('asked', '{"go": true}', run_id => pg_temp.run(13));
select is(pg_temp.turns(13), '0 queued {"go": true}', 'and starts with the input of the run where it has no dep');

select * from finish();
rollback;
