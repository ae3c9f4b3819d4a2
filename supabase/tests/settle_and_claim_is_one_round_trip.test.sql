begin;
select plan(17);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.result(n int, step text, attempt int, result jsonb) returns jsonb
return jsonb_build_object('run_id', pg_temp.run(n), 'step_slug', step, 'task_index', 0, 'attempt', attempt) || result;
-- A worker's call, whose answer is kept.
create temp table answers (n int generated always as identity, stale jsonb, tasks jsonb);
create function pg_temp.call(results jsonb, quantity int default 10) returns int language sql as $$
  insert into answers (stale, tasks)
  select a.stale, a.tasks
  from pgflow.settle_and_claim(results, array['f', 'g'], quantity, '30000000-0000-4000-8000-000000000001', lease => 60) a
  returning n
$$;

select pgflow.create_flow('f'), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b', array['a']), pgflow.add_step('f', 'c', array['b']);
select pgflow.create_flow('g'), pgflow.add_step('g', 'a');
select pgflow.start_flow('f', '"in"', run_id => pg_temp.run(1));

select pg_temp.call('[]');
select results_eq(
  'select stale, jsonb_array_length(tasks) from answers where n = 1', $$ values ('[]'::jsonb, 1) $$, 'nothing to settle: it claims'
);
select is(
  (select tasks -> 0 from answers where n = 1) - 'msg_id',
  jsonb_build_object(
    'flow_slug', 'f', 'run_id', pg_temp.run(1), 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'timeout', 60, 'input', '{"run": "in"}'::jsonb, 'refs', null
  ),
  'a task has all that a handler needs'
);
select pg_temp.call(jsonb_build_array(pg_temp.result(1, 'a', 1, '{"output": 1}')));
select results_eq(
  $$ select stale, tasks #>> '{0,step_slug}', tasks #> '{0,input}' from answers where n = 2 $$,
  $$ values ('[]'::jsonb, 'b', '{"run": "in", "a": 1}'::jsonb) $$,
  'it claims what its own settlement made ready'
);
select pg_temp.call(jsonb_build_array(pg_temp.result(1, 'b', 1, '{"output": 2}'), pg_temp.result(1, 'a', 1, '{"output": "twice"}')));
select results_eq(
  $$ select stale, tasks #>> '{0,step_slug}' from answers where n = 3 $$,
  $$ select jsonb_build_array(jsonb_build_object('run_id', pg_temp.run(1), 'step_slug', 'a', 'task_index', 0, 'attempt', 1)), 'c' $$,
  'stale results are reported; the others are applied all the same'
);
select pg_temp.call(jsonb_build_array(pg_temp.result(1, 'c', 1, '{"output": 3}')));
select results_eq('select stale, tasks from answers where n = 4', $$ values ('[]'::jsonb, '[]'::jsonb) $$, 'nothing to claim: empty arrays');
select is((select output from pgflow.runs where run_id = pg_temp.run(1)), '{"c": 3}', 'the run has ended');
select is((select count(*) from pgmq.a_f), 3::bigint, 'its messages are archived');

-- Several flows, and no more than asked for
select pgflow.start_flow(flow, to_jsonb(n), run_id => pg_temp.run(n + case flow when 'g' then 20 else 10 end))
from unnest(array['f', 'g']) flow cross join generate_series(1, 3) n;
select pg_temp.call('[]', 4);
select is((select jsonb_array_length(tasks) from answers where n = 5), 4, 'quantity limits the claim');
select pg_temp.call((
  select jsonb_agg((t - array['input', 'timeout', 'msg_id', 'flow_slug', 'refs']) || '{"output": true}') from answers, jsonb_array_elements(tasks) t where n = 5
), 0);
select results_eq('select stale, tasks from answers where n = 6', $$ values ('[]'::jsonb, '[]'::jsonb) $$, 'quantity 0 settles only');
select is((select count(*) from pgflow.step_tasks where status = 'completed'), 7::bigint, 'results of several flows in one batch');
select pg_temp.call(null, 100);
select is(
  (select count(distinct (t ->> 'run_id', t ->> 'step_slug')) from answers, jsonb_array_elements(tasks) t where n = 7),
  (select count(*) from pgflow.step_tasks where status = 'started'), 'no results claim all that is left, each once'
);
select is_empty($$ select * from pgflow.step_tasks where status = 'queued' $$, 'so that none is left');
select is((select count(distinct last_worker_id) from pgflow.step_tasks where status = 'started'), 1::bigint, 'by the worker');

select is(
  (select stale from pgflow.settle_and_claim('["no result"]', '{f}', 0, gen_random_uuid())),
  '[{"run_id": null, "step_slug": null, "task_index": null, "attempt": null, "problem": "run_id, step_slug or task_index is missing"}]',
  'a result that cannot be read is among the stale ones, with its problem'
);

-- Leases, and refused calls
select ok(
  (select bool_and(vt between clock_timestamp() + interval '30 seconds' and clock_timestamp() + interval '61 seconds') from pgmq.q_f),
  'each is hidden for the lease'
);
select throws_ok(
  format($$ select pgflow.settle_and_claim(%L, array['f'], null, null) $$, jsonb_build_array(pg_temp.result(11, 'a', 1, '{"output": 1}'))),
  'PT400', null, 'no quantity'
);
select is((select count(*) from pgflow.step_tasks where status = 'completed'), 7::bigint, 'a refused call settles nothing');

select * from finish();
rollback;
