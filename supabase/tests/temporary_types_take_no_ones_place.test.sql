begin;
select plan(4);

-- Whoever can log in and create temporary objects tries to have a function of theirs run as the owner of a definer
-- function: a temporary type with the name of a built-in one, whose constraint calls it.

select pgflow.create_flow('f', start_role => 'authenticated'), pgflow.add_step('f', 'a');

create function pg_temp.attack() returns setof name language plpgsql as $$
begin
  perform pgflow_public.start_flow('f', '{}', idempotency_key => 'k', metadata => '{}', watch => true);
  perform pgflow_public.list_runs(flow_slug => 'f', status => 'started', metadata => '{}');
  perform pgflow_public.get_run_events((pgflow_public.list_runs() -> 0 ->> 'run_id')::uuid, watch => true);
  perform pgflow_public.cancel_run((pgflow_public.list_runs() -> 0 ->> 'run_id')::uuid, 'enough');
  perform pgflow_public.retry_run((pgflow_public.list_runs() -> 0 ->> 'run_id')::uuid);
  return query select distinct c.role from pg_temp.calls c where c.role <> 'authenticated'; -- pgTAP itself is attacked, too
end
$$;

set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
create temp table calls (role name);
create function pg_temp.note(value pg_catalog.text) returns boolean language plpgsql as $$
begin
  insert into pg_temp.calls values (current_user);
  return true;
end
$$;
create domain pg_temp.text as pg_catalog.text check (pg_temp.note(value));
select lives_ok($$ select 'x'::pg_temp.text $$, 'the type can be used');
select set_eq('table calls', $$ values ('authenticated'::name) $$, 'and runs the function as whoever uses it');
truncate calls;

select is_empty('select pg_temp.attack()', 'no function of ours takes a temporary type for a built-in one');

-- The attack itself works: with an empty search_path, temporary schemas are searched first.
reset role;
do $$
declare
  ours regprocedure;
begin
  for ours in
    select p.oid from pg_proc p where p.pronamespace in ('pgflow'::regnamespace, 'pgflow_public'::regnamespace, 'pgflow_worker'::regnamespace)
  loop
    execute format('alter function %s set search_path = %L', ours, '');
  end loop;
end
$$;
set local role authenticated;
select results_eq(
  'select pg_temp.attack()', $$ values ('postgres'::name) $$, 'with an empty search_path, the function runs as our owner'
);

select * from finish();
rollback;
