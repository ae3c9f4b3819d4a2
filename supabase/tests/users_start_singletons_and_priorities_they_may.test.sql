begin;
select plan(34);

create function pg_temp.user(n int) returns uuid return format('20000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.as_user(n int) returns text language sql
as $$ select set_config('request.jwt.claims', jsonb_build_object('role', 'authenticated', 'sub', pg_temp.user(n))::text, true) $$;
create function pg_temp.run(flow text) returns uuid language sql security definer
as $$ select run_id from pgflow.run_singletons where alias = flow $$;
create function pg_temp.state(flow text) returns text language sql security definer
as $$ select string_agg(concat_ws(' ', input, status, waits_for, error), ', ' order by started_at, run_id) from pgflow.runs where flow_slug = flow $$;

select pgflow.create_flow(slug, start_role => 'authenticated'), pgflow.add_step(slug, 'a')
from unnest(array['return', 'reject', 'replace', 'after', 'plain']) slug;
update pgflow.flows set singleton_when_busy = flow_slug where flow_slug <> 'plain';

-- User 1 has runs, user 2 meets them.
set local role authenticated;
select pg_temp.as_user(1);
select lives_ok(
  format('select pgflow_public.start_flow(%L, %L)', flow, '1'), 'a user starts ' || flow
) from unnest(array['return', 'reject', 'replace', 'after']) flow;
select is(pgflow_public.start_flow('return', '2') ->> 'run_id', pg_temp.run('return')::text, 'they get their own run');
select is(pgflow_public.start_flows('return', '[2, 3]') #>> '{1,run_id}', pg_temp.run('return')::text, 'and for many inputs');
select throws_ok(
  $$ select pgflow_public.start_flow('reject', '2') $$, 'PT409', format('flow "reject" has a run already: %s', pg_temp.run('reject')),
  'are told which run is there'
);
select is(pgflow_public.start_flow('after', '2') ->> 'waits_for', 'run', 'the snapshot of one that waits says so');
select is(pgflow_public.start_flow('replace', '2') ->> 'status', 'started', 'and replace their own run');
select pg_temp.as_user(2);
select throws_ok(
  $$ select pgflow_public.start_flow('return', '2') $$, 'PT409', 'flow "return" has a run already that you may not view',
  'others do not get it'
);
select throws_ok($$ select pgflow_public.start_flow('reject', '2') $$, 'PT409', 'flow "reject" has a run already', 'nor are told of it');
select throws_ok(
  $$ select pgflow_public.start_flow('replace', '3') $$, 'PT409', 'flow "replace" has a run already that you may not cancel',
  'nor replace it'
);
select throws_ok(
  $$ select pgflow_public.start_flow('after', '3') $$, 'PT409', 'flow "after" has a run already that you may not cancel',
  'nor take the place of one that waits'
);
reset role;
select is(
  (select run_id from pgflow.start_flow('return', '2')), pg_temp.run('return'), 'SQL that a project runs for a user may'
);
select is((select status from pgflow.start_flow('replace', '3')), 'started', 'replace, too');
set local role service_role;
select is(pgflow_public.start_flow('return', '2') ->> 'run_id', pg_temp.run('return')::text, 'and so may the service role');
select is(pgflow_public.start_flow('replace', '4') ->> 'status', 'started', 'all');
reset role;
select is(
  pg_temp.state('replace'),
  '1 cancelled replaced by a newer run, 2 cancelled replaced by a newer run, 3 cancelled replaced by a newer run, 4 started', 'in turn'
);
update pgflow.runs set status = 'failed', failed_at = now(), error = 'x' where run_id = pg_temp.run('reject');
create temp table failed as select run_id from pgflow.runs where flow_slug = 'reject';
grant select on failed to authenticated;
select pgflow.start_flow('reject', '5');
set local role authenticated;
select pg_temp.as_user(1);
select throws_ok(
  format('select pgflow_public.retry_run(%L)', (select run_id from failed)), 'PT409',
  format('run %s cannot be retried: flow "reject" has another run', (select run_id from failed)), 'a retry does not name a run of others'
);
reset role;
create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text)
returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$ select action = 'view' $$;
set local role authenticated;
select pg_temp.as_user(2);
select is(pgflow_public.start_flow('return', '2') ->> 'run_id', pg_temp.run('return')::text, 'those who may see it get it');
select throws_ok($$ select pgflow_public.start_flow('replace', '3') $$, 'PT409', null, 'but to cancel it is another matter');

-- Priority
reset role;
select is((select priority from pgflow.start_flow('plain', '1')), 'normal', 'a run has the priority of its flow');
select is((select priority from pgflow.start_flow('plain', '1', priority => 'high')), 'high', 'or its own');
select is((select min(priority) from pgflow.start_flows('plain', '[1, 2]', priority => 'low')), 'low', 'as have many');
select throws_ok(
  $$ select pgflow.start_flow('plain', '1', priority => 'urgent') $$, 'PT400', 'priority is "urgent"', 'there are no others'
);
set local role authenticated;
select is(pgflow_public.start_flow('plain', '1', priority => 'low') ->> 'priority', 'low', 'users may ask for a lower one');
select is(pgflow_public.start_flows('plain', '[1]', priority => 'normal') #>> '{0,priority}', 'normal', 'and for that of the flow');
select throws_ok(
  $$ select pgflow_public.start_flow('plain', '1', priority => 'high') $$, 'PT403',
  'you may not start flow "plain" with priority high', 'but for no higher one'
);
select throws_ok($$ select pgflow_public.start_flows('plain', '[1]', priority => 'high') $$, 'PT403', null, 'nor with many inputs');
select throws_ok($$ select pgflow_public.start_flow('plain', '1', priority => 'x') $$, 'PT400', null, 'what it is not, is refused');
set local role service_role;
select is(pgflow_public.start_flow('plain', '1', priority => 'high') ->> 'priority', 'high', 'the service role may');

-- Schedules
reset role;
update pgflow.flows set priority = 'low' where flow_slug in ('plain', 'return');
select pgflow.schedule('p', 'plain', '0 0 1 1 *'), pgflow.schedule('r', 'return', '0 0 1 1 *');
select is((select priority from pgflow.run_schedule('p')), 'low', 'schedules have that of the flow');
select is_empty($$ select from pgflow.run_schedule('r') $$, 'and start no run beside one that goes on');
select is((select last_run_id from pgflow.schedules where schedule_slug = 'r'), null, 'which is not theirs');

select * from finish();
rollback;
