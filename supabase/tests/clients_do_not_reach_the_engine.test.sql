begin;
create temp view clients as select unnest(array['anon', 'authenticated', 'service_role']) as role;

-- Every function and table, tried by every role: what the planned grants do not name is denied.
create function pg_temp.denied(role text, statement text) returns boolean language plpgsql as $$
begin
  execute format('set local role %I', role);
  begin
    execute statement;
  exception
    when insufficient_privilege then
      reset role;
      return true;
    when others then
      reset role;
      return false;
  end;
  reset role;
  return false;
end
$$;

-- Of the service role, with a secret key: workers' calls, and that of a server that deletes a user.
create function pg_temp.calls_of_servers() returns name[] immutable return array[
  'register_flow', 'register_worker', 'settle_and_claim', 'heartbeat', 'hand_back', 'report_progress', 'fetch_value', 'stop_worker', 'tick',
  'next_due_in', 'settle_due', 'call_functions', 'call_timeout', 'next_call_in',
  'next_due_in', 'keep_result', 'kept_results_of', 'complete_in_transaction',
  'forget_owner'
];

create temp view calls as
select c.role, p.oid,
       format('%I.%I', n.nspname, p.proname) as name,
       format('select %I.%I(%s)', n.nspname, p.proname, (
         select string_agg(format('null::%s', t::regtype), ', ') from unnest(p.proargtypes::oid[]) t
       )) as statement
from clients c
cross join pg_proc p
join pg_namespace n on n.oid = p.pronamespace
where n.nspname = 'pgflow' and p.prorettype <> 'trigger'::regtype
  and not (p.proname like 'client\_%' or p.proname = 'schema_version')
  and not (c.role = 'authenticated' and p.proname in ('can_read_topic', 'can_access_run', 'current_user_id'))
  and not (c.role = 'service_role' and p.proname = any (pg_temp.calls_of_servers()));

create temp view statements as
select c.role, format(s, t.oid::regclass) as statement
from clients c
cross join pg_class t
cross join unnest(array['select from %s', 'insert into %s default values', 'delete from %s', 'truncate %s']) s
where t.relnamespace = 'pgflow'::regnamespace and t.relkind in ('r', 'v')
  and not (t.relkind = 'v' and s !~ '^select');

select plan(9);

select pgflow.create_flow('f'), pgflow.add_step('f', 'a');
select pgflow.start_flow('f', '1', run_id => '10000000-0000-4000-8000-000000000001', owner_id => '20000000-0000-4000-8000-000000000001');
set local request.jwt.claims = '{"sub": "20000000-0000-4000-8000-000000000001"}';

select cmp_ok((select count(*) from calls), '>', 100::bigint, 'there is something to deny');
select is_empty($$ select role, statement from calls where not pg_temp.denied(role, statement) $$, 'no client calls the engine');
select is_empty($$ select role, statement from statements where not pg_temp.denied(role, statement) $$, 'no client touches its tables');
select is_empty(
  $$ select role from clients where not pg_temp.denied(role, 'select from pgmq.q_f') $$, 'nor the queues'
);

-- The second wall: with the tables granted, users see their own runs, and nothing else.
select pgflow.start_flow('f', '2', run_id => '10000000-0000-4000-8000-000000000002', owner_id => '20000000-0000-4000-8000-000000000002');
grant select on all tables in schema pgflow to anon, authenticated;
grant insert, update, delete on pgflow.runs, pgflow.step_states, pgflow.step_tasks, pgflow.flows, pgflow.run_events, pgflow.run_watches
  to anon, authenticated;
set local role authenticated;
select results_eq(
  $$ select array(select run_id from pgflow.runs), array(select run_id from pgflow.step_states),
            array(select distinct run_id from pgflow.run_events), array(select distinct run_id from pgflow.run_event_records) $$,
  $$ select o, o, o, o from (select array['10000000-0000-4000-8000-000000000001'::uuid]) own (o) $$,
  'row level security shows the own runs, states and events'
);
select results_eq(
  $$ select (select count(*) from pgflow.flows) + (select count(*) from pgflow.steps) + (select count(*) from pgflow.deps)
          + (select count(*) from pgflow.step_tasks) + (select count(*) from pgflow.run_watches) + (select count(*) from pgflow.run_keys)
          + (select count(*) from pgflow.workers) + (select count(*) from pgflow.flow_aliases) $$,
  array[0::bigint],
  'and nothing else'
);
with changed as (update pgflow.runs set metadata = '"mine"' returning 1)
select is((select count(*) from changed), 0::bigint, 'no run can be changed, the own neither');
select throws_ok(
  $$ insert into pgflow.run_events (run_id, seq, type, at)
     values ('10000000-0000-4000-8000-000000000001', 3, 'run:completed', now()) $$,
  '42501', null, 'no event can be forged'
);
set local role anon;
select is((select count(*) from pgflow.runs), 0::bigint, 'anon sees no run');

select * from finish();
rollback;
