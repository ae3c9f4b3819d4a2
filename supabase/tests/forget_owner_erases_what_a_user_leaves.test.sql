begin;
select plan(20);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.user(n int) returns uuid return format('20000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.as_user(n int) returns text language sql
as $$ select set_config('request.jwt.claims', jsonb_build_object('role', 'authenticated', 'sub', pg_temp.user(n))::text, true) $$;

-- Runs 1 to 4 of user 1: 1 goes on and is being worked on, 2 is completed, 3 failed, 4 waits; run 5 of user 2, run 6 of nobody.
select pgflow.create_flow('f', max_attempts => 1), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b', array['a']);
select pgflow.start_flow(
  'f', to_jsonb('secret ' || n), run_id => pg_temp.run(n), idempotency_key => 'k' || n,
  owner_id => case when n <= 4 then pg_temp.user(1) when n = 5 then pg_temp.user(2) end
) from generate_series(1, 6) n;
select pgflow.claim_tasks(array['f'], 3, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(
  jsonb_build_object('run_id', pg_temp.run(2), 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'output', 'secret'),
  jsonb_build_object('run_id', pg_temp.run(3), 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'error', 'secret')
));
select pgflow.complete_task(pg_temp.run(2), 'b', 0, '"secret"');
select pgflow.watch_runs(array[pg_temp.run(1)], 'pgflow:watch:me');
-- User 1 cancels run 5, user 2 retries it, and user 2 cancels run 4; a run that user 1 has started is user 2's now.
select pg_temp.as_user(1);
select pgflow.cancel_run(pg_temp.run(5));
select pg_temp.as_user(2);
select pgflow.retry_run(pg_temp.run(5)), pgflow.cancel_run(pg_temp.run(4));
select pg_temp.as_user(1);
select pgflow.start_flow('f', '"given"', run_id => pg_temp.run(7), idempotency_key => 'k7');
update pgflow.runs set owner_id = pg_temp.user(2) where run_id = pg_temp.run(7);
set local request.jwt.claims = '';

-- Who may
set local role authenticated;
select pg_temp.as_user(1);
select throws_ok($$ select pgflow_public.forget_owner(pg_temp.user(1)) $$, '42501', null, 'users do not erase');
set local role anon;
select throws_ok($$ select pgflow_public.forget_owner(pg_temp.user(1)) $$, '42501', null, 'nor does anon');
reset role;
select throws_ok($$ select pgflow.forget_owner(null) $$, 'PT400', 'the owner is missing', 'runs of nobody are not meant');
select is(pgflow.forget_owner(pg_temp.user(9)), 0::bigint, 'a user without runs leaves nothing');

-- In slices, by the service role
set local role service_role;
set local request.jwt.claims = '{"role": "service_role"}';
select is(pgflow_public.forget_owner(pg_temp.user(1), quantity => 1), 1::bigint, 'a run at a time');
select is(pgflow_public.forget_owner(owner_id => pg_temp.user(1)), 3::bigint, 'or all that are left');
select is(pgflow_public.forget_owner(pg_temp.user(1)), 0::bigint, 'until nothing is');
reset role;

-- What is gone
select set_eq(
  $$ select run_id from pgflow.runs $$, array[pg_temp.run(5), pg_temp.run(6), pg_temp.run(7)], 'the runs, whatever their status'
);
select set_eq($$ select run_id from pgflow.step_states $$, 'select run_id from pgflow.runs', 'their steps');
select set_eq($$ select run_id from pgflow.step_tasks $$, 'select run_id from pgflow.runs', 'their tasks');
select set_eq($$ select run_id from pgflow.run_events $$, 'select run_id from pgflow.runs', 'their events');
select is_empty('table pgflow.run_watches', 'their watches');
select set_eq('select key from pgflow.run_keys', array['k5', 'k6'], 'their keys, also of a run that is another''s by now');
select is_empty(
  $$ select from pgmq.q_f where (message ->> 'run_id')::uuid not in (select run_id from pgflow.runs) $$, 'the messages'
);
select is_empty(
  format($$ select from %s t where t::text like '%%secret%%' and t::text not like '%%secret 5%%' and t::text not like '%%secret 6%%' $$, name),
  'no word of theirs in ' || name
) from unnest(array['pgflow.runs', 'pgmq.a_f']) name;
select is_empty(
  $$ select from pgflow.run_events where actor_id = pg_temp.user(1) $$, 'their id, in the events of others'
);

-- What stays
select results_eq(
  $$ select type, actor_id, actor_role from pgflow.run_events where run_id = pg_temp.run(5) and type in ('run:cancelled', 'run:retried') order by seq $$,
  $$ values ('run:cancelled', null::uuid, 'postgres'), ('run:retried', pg_temp.user(2), 'postgres') $$,
  'others'' runs, what happened to them, and who else did it'
);
select is(
  (select applied from pgflow.settle_tasks(jsonb_build_array(
    jsonb_build_object('run_id', pg_temp.run(1), 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'output', 'late')
  ))),
  false, 'a worker that comes too late changes nothing'
);
select set_eq(
  $$ select run_id from pgflow.claim_tasks(array['f'], 10, gen_random_uuid()) $$,
  array[pg_temp.run(5), pg_temp.run(6), pg_temp.run(7)], 'and the other runs go on'
);

select * from finish();
rollback;
