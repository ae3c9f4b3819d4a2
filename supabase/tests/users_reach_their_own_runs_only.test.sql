begin;
select plan(30);

-- Runs 1 and 2 of two users, run 3 of nobody.
select pgflow.create_flow('f', start_role => 'anon'), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b', deps_slugs => array['a']);
select pgflow.start_flow(
  'f', to_jsonb(n), run_id => ('10000000-0000-4000-8000-00000000000' || n)::uuid,
  owner_id => case when n < 3 then ('20000000-0000-4000-8000-00000000000' || n)::uuid end
) from generate_series(1, 3) n;
create temp table snapshots as select run_id, pgflow.snapshot(run_id) as run from pgflow.runs;
create temp table events as select run_id, jsonb_agg(event order by seq) as events from pgflow.run_event_records group by run_id;
grant select on snapshots, events to public;

prepare get_run as select pgflow_public.get_run($1);
prepare get_run_events as select pgflow_public.get_run_events($1);

-- Their own
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
select is(
  pgflow_public.get_run(run_id => '10000000-0000-4000-8000-000000000001'),
  (select run from snapshots where run_id = '10000000-0000-4000-8000-000000000001'), 'a user sees their own run'
);
select is(
  pgflow_public.get_run_events(run_id => '10000000-0000-4000-8000-000000000001'),
  (select s.events from events s where run_id = '10000000-0000-4000-8000-000000000001'), 'and its events'
);
select is(
  pgflow_public.get_run(run_id => '10000000-0000-4000-8000-000000000001', watch => '30000000-0000-4000-8000-000000000001') ->> 'status', 'started', 'and may watch it'
);

-- Others'
select throws_ok(
  format('execute get_run(%L)', id), 'PT404', format('run %s does not exist, or is not yours', id), 'no run of ' || whose
) from (values
  ('10000000-0000-4000-8000-000000000002', 'somebody else''s'), ('10000000-0000-4000-8000-000000000003', 'nobody''s'),
  ('10000000-0000-4000-8000-000000000009', 'no run at all')
) runs (id, whose);
select throws_ok(format('execute get_run_events(%L)', id), 'PT404', null, 'no events of ' || whose)
from (values
  ('10000000-0000-4000-8000-000000000002', 'somebody else''s'), ('10000000-0000-4000-8000-000000000003', 'nobody''s'),
  ('10000000-0000-4000-8000-000000000009', 'no run at all')
) runs (id, whose);
select throws_ok($$ execute get_run(null) $$, 'PT404', null, 'null is no run');
select throws_ok(
  $$ select pgflow_public.get_run('10000000-0000-4000-8000-000000000002', watch => '30000000-0000-4000-8000-000000000001') $$, 'PT404', null, 'nor can it be watched'
);

-- Users without an id
set local request.jwt.claims = '{"role": "authenticated"}';
select throws_ok($$ execute get_run('10000000-0000-4000-8000-000000000003') $$, 'PT404', null, 'no subject owns nobody''s run');
set local request.jwt.claims = '{"role": "authenticated", "sub": "x"}';
select throws_ok($$ execute get_run('10000000-0000-4000-8000-000000000001') $$, 'PT404', null, 'a subject that is no uuid owns nothing');
set local request.jwt.claims = '';
select throws_ok($$ execute get_run('10000000-0000-4000-8000-000000000001') $$, 'PT404', null, 'nor does no claim at all');
set local request.jwt.claims = '{"role": "service_role", "sub": "20000000-0000-4000-8000-000000000001"}';
select throws_ok($$ execute get_run('10000000-0000-4000-8000-000000000002') $$, 'PT404', null, 'a role in the claims opens nothing');

-- anon
set local role anon;
set local request.jwt.claims = '{"role": "anon"}';
select throws_ok(format('execute get_run(%L)', run_id), 'PT404', null, 'anon sees no run') from snapshots order by run_id;
select throws_ok($$ execute get_run_events('10000000-0000-4000-8000-000000000003') $$, 'PT404', null, 'nor events');

-- service_role
set local role service_role;
set local request.jwt.claims = '{"role": "service_role"}';
select is(
  pgflow_public.get_run(run_id), run, 'service_role sees every run'
) from snapshots where run_id <> '10000000-0000-4000-8000-000000000001' order by run_id;
select is(
  pgflow_public.get_run_events(run_id), s.events, 'and its events'
) from events s where run_id = '10000000-0000-4000-8000-000000000002';
select throws_ok($$ execute get_run('10000000-0000-4000-8000-000000000009') $$, 'PT404', null, 'that exists');

reset role;
select set_eq(
  $$ select run_id from pgflow.run_watches $$, array['10000000-0000-4000-8000-000000000001'::uuid], 'only the owner''s look has watched'
);

-- Pages of events
select is(
  (select array_agg((e ->> 'seq')::int) from jsonb_array_elements(
    pgflow_public.get_run_events('10000000-0000-4000-8000-000000000001', after => 1)
  ) e),
  array[2], 'events after the one that is known'
);
select is(pgflow_public.get_run_events('10000000-0000-4000-8000-000000000001', after => 2), '[]'::jsonb, 'none after the last');
select is(
  pgflow_public.get_run_events('10000000-0000-4000-8000-000000000001', after => null),
  pgflow_public.get_run_events('10000000-0000-4000-8000-000000000001'), 'all after null'
);
insert into pgflow.run_events (run_id, seq, type, step_slug, at)
select '10000000-0000-4000-8000-000000000001', n, 'step:progress', 'a', now() from generate_series(3, 1005) n;
select is(
  (select array[min(n), count(*), max(n)] from (
    select (e ->> 'seq')::bigint as n
    from jsonb_array_elements(pgflow_public.get_run_events('10000000-0000-4000-8000-000000000001', after => 2)) e
  ) seqs),
  array[3, 1000, 1002]::bigint[], '1,000 at a time, the first ones first'
);

-- The owner's rule can be replaced, for instance for teams.
create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text)
returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$ select pgflow.current_user_id() is not null $$;
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
select is(
  pgflow_public.get_run('10000000-0000-4000-8000-000000000002') -> 'input', '2', 'another rule opens other runs'
);
select ok(pgflow.can_read_topic('pgflow:run:10000000-0000-4000-8000-000000000002'), 'and their channels');

select * from finish();
rollback;
