begin;
select plan(38);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.user(n int) returns uuid return format('20000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.team(n int) returns uuid return format('30000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.as_user(n int) returns text language sql
as $$ select set_config('request.jwt.claims', jsonb_build_object('role', 'authenticated', 'sub', pg_temp.user(n))::text, true) $$;
create function pg_temp.ids(runs jsonb) returns int[]
return array(select (r -> 'input')::int from jsonb_array_elements(runs) with ordinality as l (r, n) order by n);

-- Runs 1 and 2 in team 1, of user 1 and of nobody; run 3 in team 2, of user 3; run 4 of user 1 alone.
select pgflow.create_flow('f', start_role => 'authenticated'), pgflow.add_step('f', 'a');
select is(
  (select group_id from pgflow.start_flow('f', '1', run_id => pg_temp.run(1), owner_id => pg_temp.user(1), group_id => pg_temp.team(1))),
  pg_temp.team(1), 'a run starts in a group'
);
select pgflow.start_flow('f', '2', run_id => pg_temp.run(2), group_id => pg_temp.team(1));
select pgflow.start_flow('f', '3', run_id => pg_temp.run(3), owner_id => pg_temp.user(3), group_id => pg_temp.team(2));
select pgflow.start_flow('f', '4', run_id => pg_temp.run(4), owner_id => pg_temp.user(1));
select set_eq(
  $$ select group_id from pgflow.start_flows('f', '[5, 6]', group_id => pg_temp.team(3)) $$, array[pg_temp.team(3)], 'many do'
);

-- Without a rule
set local role authenticated;
select pg_temp.as_user(2);
select throws_ok(
  $$ select pgflow_public.start_flow('f', '1', group_id => pg_temp.team(1)) $$,
  'PT403', 'you may not start runs in group 30000000-0000-4000-8000-000000000001', 'nobody starts runs in a group'
);
select throws_ok(
  $$ select pgflow_public.start_flows('f', '[1]', group_id => pg_temp.team(1)) $$, 'PT403', null, 'many neither'
);
select is(pgflow_public.list_runs(group_id => pg_temp.team(1)), '[]', 'nor sees those of others');
select throws_ok($$ select pgflow_public.get_run(pg_temp.run(1)) $$, 'PT404', null, 'one neither');
select pg_temp.as_user(1);
select is(pg_temp.ids(pgflow_public.list_runs(group_id => pg_temp.team(1))), array[1], 'only their own in the group');
set local role service_role;
select is(
  pgflow_public.start_flow('f', '9', group_id => pg_temp.team(9)) ->> 'group_id', pg_temp.team(9)::text, 'the service role starts runs in any group'
);
select is(pg_temp.ids(pgflow_public.list_runs(group_id => pg_temp.team(1))), array[2, 1], 'and lists them');

-- Users 1 and 2 are in team 1; user 2 may only look. User 4 looks at everything, and is in no team.
reset role;
create table public.members (user_id uuid, group_id uuid, may_change boolean);
insert into public.members values (pg_temp.user(1), pg_temp.team(1), true), (pg_temp.user(2), pg_temp.team(1), false);
create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text)
returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select exists (
    select from public.members m
    where m.user_id = pgflow.current_user_id() and m.group_id = can_access_run.group_id and (m.may_change or action = 'view')
  ) or action = 'view' and pgflow.current_user_id()::text like '%4'
$$;
create or replace function pgflow.can_start_in_group(group_id uuid)
returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select exists (
    select from public.members m
    where m.user_id = pgflow.current_user_id() and m.group_id = can_start_in_group.group_id and m.may_change
  )
$$;
set local role authenticated;

-- A member who may change
select pg_temp.as_user(1);
select is(pg_temp.ids(pgflow_public.list_runs(group_id => pg_temp.team(1))), array[2, 1], 'a member lists the runs of the group');
select is(pg_temp.ids(pgflow_public.list_runs(group_id => pg_temp.team(1), before => pg_temp.run(2))), array[1], 'in pages');
select is(pg_temp.ids(pgflow_public.list_runs(group_id => pg_temp.team(1), owner_id => pg_temp.user(1))), array[1], 'those of an owner');
select is(pg_temp.ids(pgflow_public.list_runs()), array[9, 4, 1], 'their own without it');
select is(pgflow_public.list_runs(group_id => pg_temp.team(2)), '[]', 'and none of another group');
select is(pgflow_public.get_run(pg_temp.run(2)) ->> 'group_id', pg_temp.team(1)::text, 'sees one');
select ok(pgflow.can_read_topic('pgflow:run:' || pg_temp.run(2)), 'listens to it');
select is(pgflow_public.cancel_run(pg_temp.run(2)) ->> 'status', 'cancelled', 'cancels it');
select is(pgflow_public.retry_run(pg_temp.run(2)) ->> 'status', 'started', 'retries it');
select is(
  pgflow_public.start_flow('f', '7', group_id => pg_temp.team(1)) ->> 'owner_id', pg_temp.user(1)::text, 'and starts one, which is their own'
);
select throws_ok($$ select pgflow_public.start_flow('f', '7', group_id => pg_temp.team(2)) $$, 'PT403', null, 'in this group only');
select is(pgflow_public.get_run(pg_temp.run(4)) -> 'input', '4', 'an owner sees their own run, whatever the rule says');
select ok(pgflow.can_read_topic('pgflow:run:' || pg_temp.run(4)), 'and listens to it');
select throws_ok(
  $$ select pgflow_public.cancel_run(pg_temp.run(4)) $$,
  'PT403', 'you may not cancel run 10000000-0000-4000-8000-000000000004', 'the rule decides all else, of owners, too'
);

-- One who may look
select pg_temp.as_user(2);
select is(pgflow_public.get_run(pg_temp.run(1)) -> 'input', '1', 'who may view sees a run');
select throws_ok($$ select pgflow_public.cancel_run(pg_temp.run(1)) $$, 'PT403', null, 'but does not cancel it');
select throws_ok(
  $$ select pgflow_public.retry_run(pg_temp.run(1)) $$,
  'PT403', 'you may not retry run 10000000-0000-4000-8000-000000000001', 'nor retry it'
);
select throws_ok($$ select pgflow_public.start_flow('f', '1', group_id => pg_temp.team(1)) $$, 'PT403', null, 'nor start one');
select throws_ok($$ select pgflow_public.cancel_run(pg_temp.run(3)) $$, 'PT404', null, 'and knows nothing of other groups');
select is(pg_temp.ids(pgflow_public.list_runs(owner_id => pg_temp.user(1), status => 'started', flow_slug => 'f')),
  array[7, 1], 'of an owner they list what they may see');

-- anon
set local role anon;
set local request.jwt.claims = '{"role": "anon"}';
select is(pgflow_public.list_runs(group_id => pg_temp.team(1)), '[]', 'anon is no member');

-- The second wall
reset role;
grant select on pgflow.runs, pgflow.step_states, public.members to authenticated;
set local role authenticated;
select pg_temp.as_user(2);
select set_eq($$ select input from pgflow.runs $$, array['1', '2', '7']::jsonb[], 'with the tables granted, members see the runs of their group');
select set_eq(
  $$ select distinct run_id = pg_temp.run(4) from pgflow.step_states $$, array[false], 'and the steps of these'
);
select pg_temp.as_user(3);
select set_eq($$ select run_id from pgflow.runs $$, array[pg_temp.run(3)], 'owners see their own');

-- Of what others have, a page looks at the newest 1,000 that match, however many there are.
reset role;
create sequence pg_temp.asked;
create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text)
returns boolean language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform nextval('pg_temp.asked');
  return false;
end
$$;
insert into pgflow.runs (flow_slug, input, started_at, owner_id, group_id)
select 'f', '0', now(), pg_temp.user(5), pg_temp.team(5) from generate_series(1, 3000);
set local role authenticated;
select pg_temp.as_user(5);
select is(jsonb_array_length(pgflow_public.list_runs(quantity => 1000)), 1000, 'an owner lists theirs');
select is(
  (select count(*) from pgflow.runs where owner_id = pg_temp.user(5)), 3000::bigint, 'or reads the rows, where the table is granted'
);
reset role;
select is((select is_called from pg_temp.asked), false, 'for which the rule is not asked once');
set local role authenticated;
select pg_temp.as_user(6);
select is(
  pgflow_public.list_runs(owner_id => pg_temp.user(5)) || pgflow_public.list_runs(group_id => pg_temp.team(5)), '[]', 'others list none'
);
reset role;
select is(nextval('pg_temp.asked'), 2001::bigint, 'for which it is asked 1,000 times a page at most');

select * from finish();
rollback;
