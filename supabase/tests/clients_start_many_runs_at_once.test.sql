begin;
select plan(10);

select pgflow.create_flow('for_' || role, start_role => role), pgflow.add_step('for_' || role, 'a')
from unnest(array['service_role', 'authenticated']) role;

set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
create temp table answer as
select n, run from jsonb_array_elements(pgflow_public.start_flows(
  'for_authenticated', '[{"x": 1}, null, [3]]', idempotency_keys => array['k1', null, 'k3'], metadata => '{"m": 1}', delay => 60
)) with ordinality a (run, n);

-- Contract
select results_eq(
  $$ select run -> 'input' from answer order by n $$, array['{"x": 1}', 'null', '[3]']::jsonb[], 'a run for each input, in their order'
);
select is(run - 'run_id', pgflow_public.get_run((run ->> 'run_id')::uuid) - 'run_id', 'each as its snapshot') from answer where n = 1;
select set_eq(
  $$ select run ->> 'owner_id' as owner_id, run -> 'metadata' as metadata from answer $$,
  $$ values ('20000000-0000-4000-8000-000000000001'::text, '{"m": 1}'::jsonb) $$, 'all of the user, with the metadata'
);

-- Again
select is(
  (select array_agg(run ->> 'run_id') from jsonb_array_elements(pgflow_public.start_flows(
    'for_authenticated', '[[3], {"x": 1}]', idempotency_keys => array['k3', 'k1']
  )) run),
  (select array_agg(run ->> 'run_id' order by n desc) from answer where n <> 2), 'the same keys give the same runs'
);
select throws_ok(
  $$ select pgflow_public.start_flows('for_authenticated', '[7, 8]', idempotency_keys => array['k7', 'k1']) $$, 'PT409', null,
  'a key with another input is an error'
);
select is(jsonb_array_length(pgflow_public.list_runs()), 3, 'which starts none of them');
select is(pgflow_public.start_flows('for_authenticated', '[]'), '[]', 'nothing starts nothing');

-- Who may not
select throws_ok(
  $$ select pgflow_public.start_flows('for_service_role', '[1]') $$,
  'PT403', 'the role authenticated may not start flow "for_service_role"', 'what is for servers'
);
select throws_ok($$ select pgflow_public.start_flows('nope', '[1]') $$, 'PT404', null, 'an unknown flow');

-- The delay
reset role;
select is(
  (select count(*) from pgmq.q_for_authenticated where vt > pgflow.now() + interval '50 seconds'), 3::bigint, 'all of them wait'
);

select * from finish();
rollback;
