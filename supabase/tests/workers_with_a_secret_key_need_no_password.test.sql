begin;
select plan(31);

select pgflow.create_flow('f', max_attempts => 2), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b', array['a']);
select pgflow.start_flow('f', '{"n": 1}', run_id => '10000000-0000-4000-8000-000000000001');

create temp table calls (call text);
insert into calls values
  ($$ select pgflow_worker.register_flow('{"flow_slug": "g", "steps": [{"step_slug": "a"}]}') $$),
  ($$ select pgflow_worker.register_worker('30000000-0000-4000-8000-000000000001', 'w', array['f']) $$),
  ($$ select pgflow_worker.settle_and_claim('[]', array['f'], 1, '30000000-0000-4000-8000-000000000001') $$),
  ($$ select pgflow_worker.heartbeat('30000000-0000-4000-8000-000000000001') $$),
  ($$ select pgflow_worker.hand_back('[]') $$),
  ($$ select pgflow_worker.report_progress('[]') $$),
  ($$ select pgflow_worker.fetch_value('10000000-0000-4000-8000-000000000001', 'run', '1') $$),
  ($$ select pgflow_worker.keep_result('10000000-0000-4000-8000-000000000001', 'a', 0, 1, 'x', '1') $$),
  ($$ select pgflow_worker.kept_results_of('10000000-0000-4000-8000-000000000001', 'a', 0) $$),
  ($$ select pgflow_worker.stop_worker('30000000-0000-4000-8000-000000000001') $$);
grant select on calls to anon, authenticated;

select set_config('role', 'anon', true);
select throws_ok(call, '42501', null, format('anon: %s', call)) from calls;
select set_config('role', 'authenticated', true);
select throws_ok(call, '42501', null, format('authenticated: %s', call)) from calls;

-- A whole run as the service role.
select set_config('role', 'service_role', true);
select lives_ok(
  $$ select pgflow_worker.register_flow('{"flow_slug": "g", "steps": [{"step_slug": "a"}]}') $$, 'a worker defines its flows'
);
select lives_ok(
  $$ select pgflow_worker.register_worker('30000000-0000-4000-8000-000000000001', 'w', array['f']) $$, 'a worker registers'
);
create function pg_temp.task(attempt int, step_slug text default 'a') returns jsonb return jsonb_build_object(
  'run_id', '10000000-0000-4000-8000-000000000001', 'step_slug', step_slug, 'task_index', 0, 'attempt', attempt
);
create function pg_temp.settle_and_claim(results jsonb) returns jsonb language sql as $$
  select pgflow_worker.settle_and_claim(results, array['f'], 10, '30000000-0000-4000-8000-000000000001')
$$;

select ok(
  pg_temp.settle_and_claim('[]') @> jsonb_build_object('stale', '[]'::jsonb, 'tasks', jsonb_build_array(
    pg_temp.task(1) || '{"flow_slug": "f", "input": {"run": {"n": 1}}, "timeout": 60}'
  )),
  'claims'
);
select is(
  pgflow_worker.heartbeat('30000000-0000-4000-8000-000000000001', jsonb_build_array(pg_temp.task(1)), 30),
  jsonb_build_array(pg_temp.task(1) || '{"active": true, "status": "started"}'),
  'keeps its leases'
);
select lives_ok(
  $$ select pgflow_worker.report_progress(jsonb_build_array(pg_temp.task(1) || '{"progress": {"value": 0.5}}')) $$,
  'reports progress'
);
select is(pgflow_worker.hand_back(jsonb_build_array(pg_temp.task(1))), 1, 'hands a task back');
select ok(
  pg_temp.settle_and_claim('[]') -> 'tasks' @> jsonb_build_array(pg_temp.task(2)), 'and claims it again'
);
select is(pgflow_worker.keep_result('10000000-0000-4000-8000-000000000001', 'a', 0, 2, 'x', '[1]'), '[1]', 'keeps a result of it');
select is(pgflow_worker.kept_results_of('10000000-0000-4000-8000-000000000001', 'a', 0), '{"x": [1]}', 'and reads it');
select ok(
  pg_temp.settle_and_claim(jsonb_build_array(
    pg_temp.task(1) || '{"output": "old"}', pg_temp.task(2) || '{"output": "new"}'
  )) @> jsonb_build_object('stale', jsonb_build_array(pg_temp.task(1)), 'tasks', jsonb_build_array(
    pg_temp.task(1, 'b') || '{"input": {"a": "new"}}'
  )),
  'settles, and hears what was stale'
);
select lives_ok($$ select pgflow_worker.stop_worker('30000000-0000-4000-8000-000000000001') $$, 'and says good bye');

select * from finish();
rollback;
