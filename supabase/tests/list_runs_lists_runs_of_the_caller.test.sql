begin;
select plan(28);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.owner(n int) returns uuid return format('20000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
-- The last digits of the listed runs' ids.
create function pg_temp.ids(runs jsonb) returns int[]
return array(select right(r ->> 'run_id', 2)::int from jsonb_array_elements(runs) with ordinality as l (r, n) order by n);

-- Runs 1 to 6 of user 1, 7 to 9 of user 2, 10 of nobody; each an hour after the one before, but 5 and 6 at once.
select pgflow.create_flow('f'), pgflow.add_step('f', 'a'), pgflow.create_flow('g'), pgflow.add_step('g', 'a');
select pgflow.start_flow(
  case when n % 3 = 0 then 'g' else 'f' end, to_jsonb(n), run_id => pg_temp.run(n),
  owner_id => case when n <= 6 then pg_temp.owner(1) when n <= 9 then pg_temp.owner(2) end,
  metadata => jsonb_build_object('n', n, 'tags', jsonb_build_array('t' || n % 2))
) from generate_series(1, 10) n;
update pgflow.runs set started_at = '2020-01-01 00:00+00'::timestamptz + least((input #>> '{}')::int, case input when '6' then 5 else 99 end) * interval '1 hour';
select pgflow.complete_task(pg_temp.run(n), 'a', 0, '1') from unnest(array[1, 2]) n;
select pgflow.cancel_run(pg_temp.run(4), 'enough');

prepare list_runs as select pgflow_public.list_runs();

-- Their own
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
select is(pg_temp.ids(pgflow_public.list_runs()), array[6, 5, 4, 3, 2, 1], 'a user''s own runs, the newest first');
select is(
  pgflow_public.list_runs(quantity => 1, status => 'cancelled') -> 0 ->> 'error', 'enough', 'with what a run has'
);
select is(
  (select array_agg(distinct key order by key) from jsonb_array_elements(pgflow_public.list_runs()) r cross join jsonb_object_keys(r) key),
  array['cancelled_at', 'completed_at', 'error', 'failed_at', 'flow_slug', 'group_id', 'idempotency_key', 'input', 'metadata', 'output', 'owner_id',
        'priority', 'run_id', 'started_at', 'status', 'undoes', 'undone_by', 'waits_for'],
  'the same names as a snapshot, without steps and seq'
);
select is(pg_temp.ids(pgflow_public.list_runs(flow_slug => 'f')), array[5, 4, 2, 1], 'of a flow');
select is(pg_temp.ids(pgflow_public.list_runs(status => 'started')), array[6, 5, 3], 'in a status');
select is(pg_temp.ids(pgflow_public.list_runs(flow_slug => 'f', status => 'completed')), array[2, 1], 'both');
select is(pg_temp.ids(pgflow_public.list_runs(metadata => '{"tags": ["t1"]}')), array[5, 3, 1], 'with metadata that contains this');
select is(pg_temp.ids(pgflow_public.list_runs(metadata => '{"n": 3, "tags": []}')), array[3], 'all of it');
select is(pg_temp.ids(pgflow_public.list_runs(owner_id => pg_temp.owner(1))), array[6, 5, 4, 3, 2, 1], 'of themselves by name');
select is(pgflow_public.list_runs(flow_slug => 'nope'), '[]', 'none of an unknown flow');
select is(pgflow_public.list_runs(status => 'nope'), '[]', 'none in an unknown status');

-- Pages
select is(pg_temp.ids(pgflow_public.list_runs(quantity => 2)), array[6, 5], 'a page');
select is(pg_temp.ids(pgflow_public.list_runs(quantity => 2, before => pg_temp.run(6))), array[5, 4], 'the next one, among runs of one moment');
select is(pg_temp.ids(pgflow_public.list_runs(quantity => 9, before => pg_temp.run(4), flow_slug => 'f')), array[2, 1], 'the last one, filtered');
select is(pgflow_public.list_runs(before => pg_temp.run(1)), '[]', 'nothing before the first');
select throws_ok(
  $$ select pgflow_public.list_runs(before => pg_temp.run(99)) $$, 'PT404', null, 'a run that is gone is no place to go on from'
);
select throws_ok($$ select pgflow_public.list_runs(before => pg_temp.run(9)) $$, 'PT404', null, 'nor is somebody else''s');
select is(pgflow_public.list_runs(quantity => 0), '[]', 'a page of none');
select is(pgflow_public.list_runs(quantity => -1), '[]', 'nor of fewer');

-- Others'
select is(pgflow_public.list_runs(owner_id => pg_temp.owner(2)), '[]', 'nothing of another user');
set local request.jwt.claims = '{"role": "authenticated"}';
select is(pgflow_public.list_runs(), '[]', 'no subject owns nothing, not even nobody''s runs');
set local request.jwt.claims = '{"role": "service_role", "sub": "x"}';
select is(pgflow_public.list_runs(), '[]', 'a role in the claims opens nothing');
set local role anon;
set local request.jwt.claims = '{"role": "anon"}';
select is(pgflow_public.list_runs(), '[]', 'anon sees nothing');
select is(pgflow_public.list_runs(owner_id => pg_temp.owner(1)), '[]', 'of anybody');

-- service_role
set local role service_role;
set local request.jwt.claims = '{"role": "service_role"}';
select is(pg_temp.ids(pgflow_public.list_runs()), array[10, 9, 8, 7, 6, 5, 4, 3, 2, 1], 'service_role sees all runs');
select is(pg_temp.ids(pgflow_public.list_runs(owner_id => pg_temp.owner(2), before => pg_temp.run(9))), array[8, 7], 'or those of an owner');

-- At most 1,000
reset role;
insert into pgflow.runs (flow_slug, input, started_at) select 'f', '0', '2019-01-01' from generate_series(1, 1001);
select is(jsonb_array_length(pgflow_public.list_runs(quantity => 100000)), 1000, '1,000 at a time');

-- Teams
create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text)
returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$ select owner_id is not null $$;
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
select is(pg_temp.ids(pgflow_public.list_runs(owner_id => pg_temp.owner(2))), array[9, 8, 7], 'where the rule is another one, runs of other owners by name');

select * from finish();
rollback;
