begin;
select plan(37);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.states(n int) returns text
return (
  select string_agg(ss.step_slug || ' ' || ss.status, ', ' order by s.step_index)
  from pgflow.step_states ss join pgflow.steps s using (flow_slug, step_slug) where ss.run_id = pg_temp.run(n)
);
create function pg_temp.settle(n int, step text, attempt int, result jsonb, task_index int default 0) returns boolean language sql as $$
  select s.applied from pgflow.settle_tasks(jsonb_build_array(
    jsonb_build_object('run_id', pg_temp.run(n), 'step_slug', step, 'task_index', task_index, 'attempt', attempt) || result
  )) s
$$;

-- 1. A conditional step that an empty map made ready started without its condition; long chains met an iteration cap.
select pgflow.create_flow('d1'), pgflow.add_step('d1', 'each', step_type => 'map');
select pgflow.add_step('d1', 'if_items', array['each'], run_if => '{"each": [1]}', when_unmet => 'skip');
select pgflow.add_step('d1', 's0', array['if_items'], step_type => 'map');
select pgflow.add_step('d1', 's' || n, array['s' || n - 1], step_type => 'map') from generate_series(1, 59) n;
select is((select status from pgflow.start_flow('d1', '[]', run_id => pg_temp.run(1))), 'completed', '1: chains of any length end in one call');
select is(
  (select status from pgflow.step_states where run_id = pg_temp.run(1) and step_slug = 'if_items'), 'skipped',
  '1: a condition is evaluated also after an empty map'
);

-- 2. One task went to two workers.
select pgflow.create_flow('d2', max_attempts => 3, base_delay => 0), pgflow.add_step('d2', 'each', step_type => 'map');
select pgflow.start_flow('d2', '[1, 2, 3, 4]', run_id => pg_temp.run(2));
create temp table claims as
select 1 as worker, c.* from pgflow.claim_tasks('{d2}', 2, '30000000-0000-4000-8000-000000000001') c;
insert into claims select 2, c.* from pgflow.claim_tasks('{d2}', 9, '30000000-0000-4000-8000-000000000002') c;
insert into claims select 3, c.* from pgflow.claim_tasks('{d2}', 9, '30000000-0000-4000-8000-000000000003') c;
select results_eq(
  'select worker, count(*), count(distinct task_index) from claims group by 1 order by 1', $$ values (1, 2::bigint, 2::bigint), (2, 2, 2) $$,
  '2: each task is claimed once'
);
select is((select count(distinct task_index) from claims), 4::bigint, '2: and none is left out');
select results_eq(
  $$ select c.task_index, c.attempt, c.worker from claims c order by 1 $$,
  $$ select t.task_index, t.attempts_count, right(t.last_worker_id::text, 1)::int from pgflow.step_tasks t where t.run_id = pg_temp.run(2) order by 1 $$,
  '2: what a worker is told is what the row says'
);

-- 3. A slow worker completed or failed a newer attempt.
update pgmq.q_d2 set vt = clock_timestamp() - interval '1 second' where (message ->> 'task_index')::int = 0;
select pgflow.claim_tasks('{d2}', 1, '30000000-0000-4000-8000-000000000004');
select is(pg_temp.settle(2, 'each', 1, '{"output": "slow"}'), false, '3: an older attempt does not complete a newer one');
select is(pg_temp.settle(2, 'each', 1, '{"error": "slow", "permanent": true}'), false, '3: nor fail it');
select is(pg_temp.settle(2, 'each', 2, '{"output": "new"}'), true, '3: the newer one settles');

-- 4. Work in a SELECT that nothing referenced was never done: messages stayed visible, or in the queue, nobody was told.
select pgflow.create_flow('d4', base_delay => 600, timeout => 1000, broadcast => 'always'), pgflow.add_step('d4', 'a');
select pgflow.start_flow('d4', '1', run_id => pg_temp.run(4));
select pgflow.poll_for_tasks('d4', 1, 1, max_poll_seconds => 0);
select ok((select vt > clock_timestamp() + interval '990 seconds' from pgmq.q_d4), '4: a polled message is hidden for its timeout');
select pg_temp.settle(4, 'a', 1, '{"error": "x"}');
select ok((select vt between clock_timestamp() + interval '1190 seconds' and clock_timestamp() + interval '1201 seconds' from pgmq.q_d4), '4: a failed one until its next attempt');
select pgflow.complete_task(pg_temp.run(4), 'a', 0, '1');
select results_eq('select (select count(*) from pgmq.q_d4), (select count(*) from pgmq.a_d4)', $$ values (0::bigint, 1::bigint) $$, '4: a settled one is archived');
select set_eq(
  $$ select e ->> 'seq' from realtime.messages m, jsonb_array_elements(m.payload #> '{runs,0,events}') e where m.topic = 'pgflow:run:' || pg_temp.run(4) $$,
  $$ select seq::text from pgflow.run_events where run_id = pg_temp.run(4) $$, '4: every event is broadcast'
);

-- 5. Tasks and messages stayed open after their run or step had ended; a stalled task hung its run.
select pgflow.create_flow('d5', max_attempts => 1), pgflow.add_step('d5', 'each', step_type => 'map'), pgflow.add_step('d5', 'other');
select pgflow.start_flow('d5', '[1, 2, 3]', run_id => pg_temp.run(n)) from generate_series(5, 7) n;
select pgflow.claim_tasks('{d5}', 2, gen_random_uuid()), pgflow.fail_task(pg_temp.run(5), 'each', 0, 'x'), pgflow.cancel_run(pg_temp.run(6));
select is_empty(
  $$ select * from pgflow.step_tasks t where t.run_id in (pg_temp.run(5), pg_temp.run(6)) and t.status in ('queued', 'started') $$,
  '5: a run that ended has no open task'
);
select is((select count(*) from pgmq.q_d5), 4::bigint, '5: nor message');
select pgflow.claim_tasks('{d5}', 1, gen_random_uuid());
update pgmq.q_d5 set vt = clock_timestamp() - interval '1 second';
select pgflow.claim_tasks('{d5}', 10, gen_random_uuid());
select is((select status from pgflow.runs where run_id = pg_temp.run(7)), 'failed', '5: a stalled task ends its run');
select is((select count(*) from pgmq.q_d5), 0::bigint, '5: and everything of it');

-- 6. A completed event followed `run:failed`.
select is(pg_temp.settle(5, 'each', 1, '{"output": "late"}', 1), false, '6: nothing completes after its run has failed');
select is_empty(
  $$ select * from pgflow.run_events e join pgflow.run_events ended using (run_id)
     where ended.type in ('run:failed', 'run:completed', 'run:cancelled') and e.seq > ended.seq $$, '6: the end of a run is its last event'
);

-- 7. add_step again with more deps changed the edges, not the counter; a dep named twice hung runs.
select pgflow.create_flow('d7'), pgflow.add_step('d7', 'a'), pgflow.add_step('d7', 'b'), pgflow.add_step('d7', 'c', array['a']);
select throws_ok($$ select pgflow.add_step('d7', 'c', array['a', 'b']) $$, 'PT409', null, '7: more deps are an error');
select throws_ok($$ select pgflow.add_step('d7', 'x', array['a', 'a']) $$, 'PT400', null, '7: so is a dep that is named twice');
select is_empty(
  $$ select s.flow_slug, s.step_slug from pgflow.steps s where s.deps_count <> (
       select count(*) from pgflow.deps d where (d.flow_slug, d.step_slug) = (s.flow_slug, s.step_slug)
     ) $$, '7: every step counts its edges'
);

-- 8. Long slugs exceeded pgmq's 47 characters; slugs that differ in case shared a queue.
select pgflow.create_flow(slug), pgflow.add_step(slug, 'a'), pgflow.start_flow(slug, to_jsonb(slug))
from unnest(array['D8', 'd8', repeat('x', 48), repeat('x', 128), 'X' || repeat('x', 127)]) slug;
select is((select count(distinct lower(queue_name)) from pgflow.flows where lower(flow_slug) ~ '^(d8|x+)$'), 5::bigint, '8: two slugs never share a queue');
select results_eq(
  $$ select input ->> 'run' from pgflow.claim_tasks(array[repeat('x', 128)], 10, gen_random_uuid()) $$, array[repeat('x', 128)], '8: a long slug works'
);

-- 9. Starting twice with one id or key raised a unique violation.
select is(
  (select r.run_id from pgflow.start_flow('d7', '1', idempotency_key => 'k') r), (select r.run_id from pgflow.start_flow('d7', '1', idempotency_key => 'k') r),
  '9: a key that is used twice gives the run'
);
select is(
  (select r.run_id from pgflow.start_flow('d7', '1', run_id => pg_temp.run(9)) r), (select r.run_id from pgflow.start_flow('d7', '1', run_id => pg_temp.run(9)) r),
  '9: so does an id'
);

-- 10. false, 0 and "" became null; strings that look like JSON were parsed again.
select pgflow.create_flow('d10'), pgflow.add_step('d10', 'a'), pgflow.add_step('d10', 'b', array['a']);
create temp table outputs (n int, output jsonb);
insert into outputs values (1, 'null'), (2, 'false'), (3, '0'), (4, '""'), (5, '"123"'), (6, '"{}"'), (7, '[]');
select pgflow.start_flow('d10', output, run_id => pg_temp.run(100 + n)) from outputs;
select count(*) from pgflow.claim_tasks('{d10}', 100, gen_random_uuid());
select pg_temp.settle(100 + n, 'a', 1, jsonb_build_object('output', output)) from outputs;
select results_eq(
  $$ select input from pgflow.claim_tasks('{d10}', 100, gen_random_uuid()) order by run_id $$,
  $$ select jsonb_build_object('run', output, 'a', output) from outputs order by n $$, '10: any JSON value is an input and an output as it is'
);
select pg_temp.settle(100 + n, 'b', 1, jsonb_build_object('output', output)) from outputs;
select results_eq(
  $$ select output -> 'b' from pgflow.runs where flow_slug = 'd10' order by run_id $$, 'select output from outputs order by n', '10: to the run''s output'
);
select pgflow.start_flow('d10', '1', run_id => pg_temp.run(10));
select pgflow.claim_tasks('{d10}', 1, gen_random_uuid());
select throws_ok(
  $$ select pg_temp.settle(10, 'a', 1, '{"output": "\u0000"}') $$, '22P05', null, '10: a NUL is refused before anything is settled'
);
select is(pg_temp.settle(10, 'a', 1, '{}'), true, '10: a failure without a message');
select is((select error from pgflow.step_states where run_id = pg_temp.run(10) and step_slug = 'a'), 'failed without a message', '10: still says something');

-- 11. Each task of a map read the whole array again, and every item's input held the run's.
select pgflow.start_flow('d2', (select jsonb_agg(repeat('x', 1000)) from generate_series(1, 300)), run_id => pg_temp.run(11));
select cmp_ok(
  (select max(octet_length(input::text)) from pgflow.step_tasks where run_id = pg_temp.run(11)), '<', 1100, '11: a task keeps its own item only'
);

-- 12. Every finished item of a map, and every retry, wrote the run.
create temp table run_row as select r.ctid as place, r.run_id from pgflow.runs r where r.run_id = pg_temp.run(11);
select count(*) from pgflow.claim_tasks('{d2}', 1000, gen_random_uuid());
select pg_temp.settle(11, 'each', 1, '{"output": 1}', 0), pg_temp.settle(11, 'each', 1, '{"error": "x"}', 1);
select is(
  (select r.ctid from pgflow.runs r join run_row using (run_id)), (select place from run_row), '12: an item that completed, or is retried, does not write the run'
);

-- 13. Delays were documented one way and computed another.
select pgflow.create_flow('d13', base_delay => 10, max_attempts => 9), pgflow.add_step('d13', 'a');
set local pgflow.now = '2020-01-01 00:00+00';
select pgflow.start_flow('d13', '1', run_id => pg_temp.run(13));
create temp table delays (attempt int, seconds int, hidden timestamptz);
create function pg_temp.attempt() returns void language plpgsql as $$
declare
  n int := (select c.attempt from pgflow.claim_tasks('{d13}', 1, null) c);
begin
  perform pg_temp.settle(13, 'a', n, '{"error": "x"}');
  insert into delays
  select n, extract(epoch from ss.retry_at - pgflow.now()), q.vt from pgflow.step_states ss, pgmq.q_d13 q where ss.run_id = pg_temp.run(13);
end
$$;
select pg_temp.attempt() from generate_series(1, 4);
select results_eq(
  'select attempt, seconds from delays order by 1', $$ values (1, 20), (2, 40), (3, 80), (4, 160) $$, '13: the wait after attempt n is base_delay * 2^n'
);
select results_eq(
  'select seconds::numeric from delays order by 1', 'select pgflow.calculate_retry_delay(10, n) from generate_series(1, 4) n', '13: as calculate_retry_delay says'
);
select is_empty(
  $$ select * from delays where hidden <> '2020-01-01 00:00+00'::timestamptz + make_interval(secs => seconds) $$, '13: and as the message waits'
);

-- All of it
select is_empty(
  $$ select t.run_id from pgflow.step_tasks t join pgflow.step_states ss using (run_id, step_slug) join pgflow.runs r using (run_id)
     where t.status in ('queued', 'started') and (ss.status <> 'started' or r.status <> 'started') $$, 'no task is open under what is closed'
);
select is_empty(
  $$ select run_id from pgflow.run_events group by run_id having array_agg(seq order by seq) <> array(select generate_series(1, max(seq))) $$,
  'no log has a gap'
);

select * from finish();
rollback;
