begin;
select plan(33);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

-- Runs 1, 4 and 5 of one user, run 2 of another, run 3 of nobody.
select pgflow.create_flow('f'), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b');
select pgflow.start_flow(
  'f', '1', run_id => pg_temp.run(n),
  owner_id => ('20000000-0000-4000-8000-00000000000' || case n when 2 then 2 else 1 end)::uuid
) from generate_series(1, 5) n;
update pgflow.runs set owner_id = null where run_id = pg_temp.run(3);

prepare cancel_run as select pgflow_public.cancel_run($1);
prepare retry_run as select pgflow_public.retry_run($1);
create temp table others (n int, whose text);
insert into others values (2, 'somebody else''s'), (3, 'nobody''s'), (9, 'no run at all');
grant select on others to public;

-- Others' runs
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
select throws_ok(
  format('execute %s(%L)', call, pg_temp.run(n)), 'PT404', format('run %s does not exist, or is not yours', pg_temp.run(n)),
  call || ': not ' || whose
) from others cross join unnest(array['cancel_run', 'retry_run']) call;
select throws_ok('execute cancel_run(null)', 'PT404', null, 'null is no run to cancel');
select throws_ok('execute retry_run(null)', 'PT404', null, 'nor to retry');

-- Their own
select is(
  pgflow_public.cancel_run(run_id => pg_temp.run(1), reason => 'enough') - array['started_at', 'cancelled_at', 'steps'],
  '{"run_id": "10000000-0000-4000-8000-000000000001", "flow_slug": "f", "status": "cancelled", "input": 1, "output": null, "error": "enough",
    "owner_id": "20000000-0000-4000-8000-000000000001", "group_id": null, "idempotency_key": null, "metadata": null, "completed_at": null, "failed_at": null,
    "seq": 6, "priority": "normal", "waits_for": null, "undoes": null, "undone_by": null}'::jsonb,
  'a user cancels their run and gets its snapshot'
);
select is(
  (select array_agg(s ->> 'status') from jsonb_array_elements(pgflow_public.get_run(pg_temp.run(1)) -> 'steps') s),
  array['cancelled', 'cancelled'], 'with its steps'
);
select is(
  pgflow_public.cancel_run(pg_temp.run(1), 'again'), pgflow_public.get_run(pg_temp.run(1)), 'a second call answers with the run as it is'
);
select is(pgflow_public.cancel_run(pg_temp.run(4)) -> 'error', 'null', 'a reason is not needed');
select is(pgflow_public.retry_run(run_id => pg_temp.run(1)) ->> 'status', 'started', 'a user retries their run');
select is(pgflow_public.retry_run(pg_temp.run(4)) - 'seq', pgflow_public.get_run(pg_temp.run(4)) - 'seq', 'and gets its snapshot');
select throws_ok('execute retry_run($$10000000-0000-4000-8000-000000000004$$)', 'PT409', null, 'a run that goes on is not retried');

reset role;
select pgflow.complete_task(pg_temp.run(5), step, 0, '1') from unnest(array['a', 'b']) step;
set local role authenticated;
select throws_ok('execute cancel_run($$10000000-0000-4000-8000-000000000005$$)', 'PT409', null, 'a completed run is not cancelled');
select throws_ok('execute retry_run($$10000000-0000-4000-8000-000000000005$$)', 'PT409', null, 'nor retried');

-- Users without an id, and anon
set local request.jwt.claims = '{"role": "authenticated"}';
select throws_ok(format('execute cancel_run(%L)', pg_temp.run(3)), 'PT404', null, 'no subject owns nobody''s run');
set local request.jwt.claims = '{"role": "service_role", "sub": "20000000-0000-4000-8000-000000000001"}';
select throws_ok(format('execute cancel_run(%L)', pg_temp.run(2)), 'PT404', null, 'a role in the claims opens nothing');
set local role anon;
set local request.jwt.claims = '{"role": "anon"}';
select throws_ok(format('execute %s(%L)', call, pg_temp.run(n)), 'PT404', null, format('anon: no %s of run %s', call, n))
from generate_series(1, 3) n cross join unnest(array['cancel_run', 'retry_run']) call;

-- service_role
set local role service_role;
set local request.jwt.claims = '{"role": "service_role"}';
select is(pgflow_public.cancel_run(pg_temp.run(n)) ->> 'status', 'cancelled', 'service_role cancels run ' || n) from generate_series(2, 3) n;
select is(pgflow_public.retry_run(pg_temp.run(n)) ->> 'status', 'started', 'and retries run ' || n) from generate_series(2, 3) n;
select throws_ok(format('execute cancel_run(%L)', pg_temp.run(9)), 'PT404', null, 'that exists');

-- What the refused calls did
reset role;
select is_empty(
  $$ select * from pgflow.run_events where run_id = pg_temp.run(2) and seq > 9 $$, 'nothing but the service role''s calls is in the log'
);

-- Another rule
create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text)
returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$ select pgflow.current_user_id() is not null $$;
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
select is(pgflow_public.cancel_run(pg_temp.run(2)) ->> 'status', 'cancelled', 'another rule opens other runs');
select is(pgflow_public.retry_run(pg_temp.run(2)) ->> 'status', 'started', 'both ways');

select * from finish();
rollback;
