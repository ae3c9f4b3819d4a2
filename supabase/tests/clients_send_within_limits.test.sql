begin;
select plan(27);

select pgflow.create_flow('f', start_role => 'anon'), pgflow.add_step('f', 'a');
update pgflow.flows set max_input_bytes = 100 where flow_slug = 'f';
create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

-- What a handler throws is kept, to a limit: no failure is lost because of its length.
select pgflow.start_flow('f', '1', run_id => pg_temp.run(n)) from generate_series(2, 3) n;
select pgflow.claim_tasks('{f}', 2, gen_random_uuid());
create temp table failed as
select * from pgflow.settle_and_claim(jsonb_build_array(jsonb_build_object(
  'run_id', pg_temp.run(2), 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'error', repeat(repeat('ä', 1000), 10000), 'permanent', true,
  'thrown', jsonb_build_object('name', 'Error', 'message', repeat('m', 100000), 'stack', repeat('s', 100000))
)), '{}', 0, null);
select is((select stale from failed), '[]', 'an error of 20 MB is settled');
select set_eq(
  $$ select r.status, r.error as of_run, ss.error as of_step, t.error_message as of_task
     from pgflow.runs r join pgflow.step_states ss using (run_id) join pgflow.step_tasks t using (run_id) where r.run_id = pg_temp.run(2) $$,
  $$ values ('failed', repeat('ä', 10000), repeat('ä', 10000), repeat('ä', 10000)) $$, 'and cut to 10,000 characters'
);
select is(
  (select last_error from pgflow.step_tasks where run_id = pg_temp.run(2)),
  jsonb_build_object('name', 'Error', 'message', repeat('m', 10000), 'stack', repeat('s', 10000)), 'so is what was thrown'
);
select is(
  (select length(error_message) from pgflow.fail_task(pg_temp.run(3), 'a', 0, repeat('x', 20000))), 10000, 'and an error by hand'
);

-- The size of an input
select is((select max_input_bytes from pgflow.create_flow('g')), 1048576, 'an input has 1 MB at most by default');
select throws_ok($$ update pgflow.flows set max_input_bytes = 0 $$, '23514', null, 'a limit is positive');
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
select lives_ok($$ select pgflow_public.start_flow('f', to_jsonb(repeat('x', 98))) $$, '100 bytes of JSON with a limit of 100');
select throws_ok(
  $$ select pgflow_public.start_flow('f', to_jsonb(repeat('x', 99))) $$,
  'PT413', 'an input of 101 bytes is too large for flow "f"', 'not 101'
);
select throws_ok($$ select pgflow_public.start_flow('f', to_jsonb(repeat('ä', 50))) $$, 'PT413', null, 'which are bytes, not characters');
select throws_ok(
  $$ select pgflow_public.start_flows('f', jsonb_build_array(1, repeat('x', 99))) $$, 'PT413', null, 'the largest of a batch counts'
);
select is(
  jsonb_array_length(pgflow_public.start_flows('f', jsonb_build_array(repeat('x', 90), repeat('y', 90)))), 2, 'not all of it together'
);

-- The size of a batch
select is(
  jsonb_array_length(pgflow_public.start_flows('f', (select jsonb_agg(n) from generate_series(1, 1000) n))), 1000, '1,000 at once'
);
select throws_ok(
  $$ select pgflow_public.start_flows('f', (select jsonb_agg(n) from generate_series(1, 1001) n)) $$,
  'PT413', '1001 inputs are too many for one call', 'not more'
);
select throws_ok($$ select pgflow_public.start_flows('f', '{}') $$, 'PT400', null, 'an object is no batch');
select throws_ok($$ select pgflow_public.start_flows('f', null) $$, 'PT400', null, 'nor is null');

-- The service role
set local role service_role;
set local request.jwt.claims = '{"role": "service_role"}';
select lives_ok($$ select pgflow_public.start_flow('f', to_jsonb(repeat('x', 1000))) $$, 'servers send larger inputs');
select is(
  jsonb_array_length(pgflow_public.start_flows('f', (select jsonb_agg(n) from generate_series(1, 1001) n))), 1001, 'and larger batches'
);

-- Metadata, delays, reasons, for everybody
reset role;
select lives_ok($$ select pgflow.start_flow('f', '1', metadata => to_jsonb(repeat('x', 65534))) $$, 'metadata of 64 KB');
select throws_ok(
  $$ select pgflow.start_flow('f', '1', metadata => to_jsonb(repeat('x', 65535))) $$,
  'PT413', 'metadata of 65537 bytes are too large', 'not more'
);
select throws_ok($$ select pgflow.start_flow('f', '1', delay => 31536001) $$, 'PT400', null, 'a delay of more than a year');
select pgflow.start_flow('f', '1', run_id => pg_temp.run(1));
select throws_ok(
  $$ select pgflow.cancel_run(pg_temp.run(1), repeat('x', 10001)) $$, 'PT413', 'a reason of 10001 characters is too long', 'a long reason'
);
select is((select status from pgflow.runs where run_id = pg_temp.run(1)), 'started', 'cancels nothing');
select is((select length(error) from pgflow.cancel_run(pg_temp.run(1), repeat('x', 10000))), 10000, 'one of 10,000 characters does');

-- Quotas
create or replace function pgflow.may_start(flow_slug text, owner_id uuid, quantity int)
returns boolean language sql set search_path = pg_catalog, pg_temp as $$
  select count(*) + quantity <= 2 from pgflow.runs r
  where r.flow_slug = may_start.flow_slug and r.owner_id is not distinct from may_start.owner_id and r.status = 'started'
$$;
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000002"}';
select throws_ok(
  $$ select pgflow_public.start_flows('f', '[1, 2, 3]') $$, 'PT403', 'you may not start flow "f" now', 'a rule sees how many are to start'
);
select pgflow_public.start_flows('f', '[1, 2]');
select throws_ok($$ select pgflow_public.start_flow('f', '3') $$, 'PT403', null, 'and those that have');
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000003"}';
select lives_ok($$ select pgflow_public.start_flow('f', '3') $$, 'of this user');
set local role service_role;
set local request.jwt.claims = '{"role": "service_role"}';
select lives_ok($$ select pgflow_public.start_flows('f', '[1, 2, 3]') $$, 'servers are not asked');

select * from finish();
rollback;
