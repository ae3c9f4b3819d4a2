begin;
select plan(16);

create function pg_temp.owner(n int) returns uuid return format('20000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.sign_in(n int) returns void language sql as $$
  select set_config('request.jwt.claims', jsonb_build_object('role', 'authenticated', 'sub', pg_temp.owner(n))::text, true)
$$;
create function pg_temp.children(page jsonb) returns text[] return array(
  select concat(child ->> 'parent_step_slug', ' ', child ->> 'parent_task_index') from jsonb_array_elements(page) with ordinality c (child, n) order by n
);

select pgflow.create_flow('child'), pgflow.add_step('child', 'work');
select pgflow.create_flow('parent'), pgflow.add_step('parent', 'z', step_type => 'map', options => '{"child_flow": "child"}'),
       pgflow.add_step('parent', 'a', options => '{"child_flow": "child"}');
select pgflow.start_flow('parent', '[1, 2, 3]', pg_temp.run(1), owner_id => pg_temp.owner(1));
select pgflow.tick();

set local role authenticated;
select pg_temp.sign_in(1);
select is(
  pg_temp.children(pgflow_public.list_children(pg_temp.run(1))), '{z 0,z 1,z 2,a 0}', 'in the order of steps and items'
);
select is(pg_temp.children(pgflow_public.list_children(pg_temp.run(1), 'z')), '{z 0,z 1,z 2}', 'of one step');
select is(pg_temp.children(pgflow_public.list_children(pg_temp.run(1), 'z', after => 0, quantity => 1)), '{z 1}', 'in pages');
select is(pgflow_public.list_children(pg_temp.run(1), 'z', after => 2), '[]', 'until there are no more');
select is(pgflow_public.list_children(pg_temp.run(1), 'nope'), '[]', 'an unknown step has none');
select throws_ok(
  $$ select pgflow_public.list_children(pg_temp.run(1), after => 0) $$, 'PT400', 'after is given without step_slug', 'a place is one within a step'
);
select is(
  (select pgflow_public.list_children(pg_temp.run(1), 'a') -> 0) - '{run_id,started_at}'::text[],
  jsonb_build_object(
    'flow_slug', 'child', 'status', 'started', 'input', '[1, 2, 3]'::jsonb, 'output', null, 'error', null, 'owner_id', pg_temp.owner(1),
    'group_id', null, 'idempotency_key', null, 'metadata', null, 'priority', 'normal', 'waits_for', null, 'undoes', null, 'undone_by', null, 'completed_at', null,
    'failed_at', null, 'cancelled_at', null, 'parent_run_id', pg_temp.run(1), 'parent_step_slug', 'a', 'parent_task_index', 0, 'depth', 1
  ),
  'with what a run has, and whose child it is'
);
select is(
  pgflow_public.list_children((pgflow_public.list_children(pg_temp.run(1), 'a') -> 0 ->> 'run_id')::uuid), '[]', 'a child may have none'
);
select is(
  pgflow_public.get_run((pgflow_public.list_children(pg_temp.run(1), 'a') -> 0 ->> 'run_id')::uuid) ->> 'parent_run_id', pg_temp.run(1)::text,
  'and the snapshot of a child names its parent'
);
select is((select jsonb_agg(r -> 'flow_slug') from jsonb_array_elements(pgflow_public.list_runs()) r), '["parent"]', 'list_runs shows root runs');
select is(jsonb_array_length(pgflow_public.list_runs(children => true)), 5, 'and children, if asked');
select is(jsonb_array_length(pgflow_public.list_runs(children => true, flow_slug => 'child', watch => gen_random_uuid()::text)), 4, 'of a flow, watched');
select is(pgflow_public.list_runs(children => null), pgflow_public.list_runs(), 'null is no question');

select pg_temp.sign_in(2);
select throws_ok($$ select pgflow_public.list_children(pg_temp.run(1)) $$, 'PT404', null, 'those of somebody else do not exist');
set local role anon;
select set_config('request.jwt.claims', '{"role": "anon"}', true);
select throws_ok($$ select pgflow_public.list_children(pg_temp.run(1)) $$, 'PT404', null, 'nor for nobody');
set local role service_role;
select set_config('request.jwt.claims', '{"role": "service_role"}', true);
select is(jsonb_array_length(pgflow_public.list_children(pg_temp.run(1))), 4, 'a secret key sees all');

select * from finish();
rollback;
