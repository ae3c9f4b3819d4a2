begin;
select plan(45);
set local timezone = 'UTC';
set local pgflow.now = '2026-03-01 12:00:30+00';

select pgflow.register_flow(format('{"flow_slug": "%s", "start_role": "%s", "schedulable": %s, "steps": [{"step_slug": "a"}]}', slug, role, allowed::text)::jsonb)
from (values ('digest', 'authenticated', true), ('open', 'anon', true), ('inner', 'service_role', true), ('closed', 'authenticated', false)) f (slug, role, allowed);
select pgflow.schedule('given', 'digest', '@daily', owner_id => '20000000-0000-4000-8000-000000000001');
select pgflow.schedule('ours', 'digest', '@daily');
create function pg_temp.become(who int, role text default 'authenticated') returns text language sql as $$
  select set_config('request.jwt.claims', jsonb_build_object('role', role, 'sub', '20000000-0000-4000-8000-00000000000' || who)::text, true)
$$;
grant execute on all functions in schema pg_temp to public;

-- A user
set local role authenticated;
select pg_temp.become(1);
select is(
  pgflow_public.schedule_flow('digest', '0 7 * * *', '{"topics": ["ai"]}', 'Europe/Berlin')
    - 'created_at',
  '{"schedule_slug": "digest", "alias": "digest", "made_by": "client", "cron": "0 7 * * *", "time_zone": "Europe/Berlin", "input": {"topics": ["ai"]}, "overlap": "skip", "catch_up": "last", "catch_up_window": 86400, "spread": 0, "owner_id": "20000000-0000-4000-8000-000000000001", "group_id": null, "paused_at": null, "next_at": "2026-03-02T06:00:00+00:00", "last_at": null, "last_run_id": null, "last_problem": null}',
  'makes a schedule of their own'
);
select is(pgflow_public.schedule_flow('digest', '0 8 * * *', '1', 'Asia/Tokyo', overlap => 'allow') ->> 'next_at', '2026-03-01T23:00:00+00:00', 'changes it');
select is(pgflow_public.schedule_flow('digest', '0 8 * * *', null, schedule_slug => 'second') -> 'input', 'null', 'may have another one');
select is(
  (select jsonb_agg(s -> 'schedule_slug') from jsonb_array_elements(pgflow_public.list_schedules()) s), '["digest", "given", "second"]', 'lists their own'
);
select is(jsonb_array_length(pgflow_public.list_schedules('open')), 0, 'those of a flow');
select is(pgflow_public.pause_schedule('second') ->> 'paused_at', '2026-03-01T12:00:30+00:00', 'pauses it');
select is(pgflow_public.resume_schedule('second') -> 'paused_at', 'null', 'resumes it');
select is(pgflow_public.delete_schedule('second') ->> 'schedule_slug', 'second', 'deletes it');
select throws_ok($$ select pgflow_public.pause_schedule('second') $$, 'PT404', 'schedule "second" does not exist', 'then it is gone');
select throws_ok(format('select pgflow_public.%s', call), 'PT403', 'you may not change schedule "given"', call || ' of what the project has made')
from unnest(array['pause_schedule(''given'')', 'resume_schedule(''given'')', 'delete_schedule(''given'')', 'schedule_flow(''digest'', ''@daily'', schedule_slug => ''given'')']) call;
select throws_ok($$ select pgflow_public.pause_schedule('ours') $$, 'PT404', null, 'one of nobody is not there');
select throws_ok($$ select pgflow_public.schedule_flow('closed', '@daily') $$, 'PT403', 'users may not schedule flow "closed"', 'no flow that is not schedulable');
select throws_ok($$ select pgflow_public.schedule_flow('inner', '@daily') $$, 'PT403', 'the role authenticated may not start flow "inner"', 'nor one that they may not start');
select throws_ok($$ select pgflow_public.schedule_flow('nope', '@daily') $$, 'PT404', null, 'nor one that is not there');
select throws_ok($$ select pgflow_public.schedule_flow('digest', 'soon') $$, 'PT400', null, 'an expression that is none');
select throws_ok($$ select pgflow_public.schedule_flow('digest', '@daily', to_jsonb(repeat('x', 1048577))) $$, 'PT413', null, 'an input that is too large');
select throws_ok(format('select pgflow_public.%s', call), 'PT403', 'you may not use the schedules of another user', call)
from unnest(array[
  'schedule_flow(''digest'', ''@daily'', owner_id => ''20000000-0000-4000-8000-000000000002'')', 'list_schedules(owner_id => ''20000000-0000-4000-8000-000000000002'')',
  'pause_schedule(''digest'', ''20000000-0000-4000-8000-000000000002'')'
]) call;

-- Another user
select pg_temp.become(2);
select is(pgflow_public.list_schedules(), '[]', 'another user sees none of them');
select throws_ok(format('select pgflow_public.%s(''digest'')', call), 'PT404', 'schedule "digest" does not exist', call)
from unnest(array['pause_schedule', 'resume_schedule', 'delete_schedule']) call;
select is(pgflow_public.schedule_flow('digest', '@hourly') ->> 'owner_id', '20000000-0000-4000-8000-000000000002', 'but may have one with the same slug');
select lives_ok(format('select pgflow_public.schedule_flow(''open'', ''@daily'', schedule_slug => ''s%s'')', n), 'up to a limit') from generate_series(20, 20) n;
do $$ begin perform pgflow_public.schedule_flow('open', '@daily', schedule_slug => 's' || n) from generate_series(1, 19) n; end $$;
select throws_ok($$ select pgflow_public.schedule_flow('open', '@daily') $$, 'PT403', 'you may not have more than 20 schedules of flow "open"', 'of 20 for a flow');
select lives_ok($$ select pgflow_public.schedule_flow('open', '@weekly', schedule_slug => 's1') $$, 'one of them can be changed');

-- Nobody
set local role anon;
set local request.jwt.claims = '{"role": "anon"}';
select throws_ok(format('select pgflow_public.%s', call), 'PT403', 'the role anon has no schedules without a user id', 'anon: ' || call)
from unnest(array['schedule_flow(''open'', ''@daily'')', 'list_schedules()', 'pause_schedule(''digest'')', 'resume_schedule(''digest'')', 'delete_schedule(''digest'')']) call;

-- The service role
set local role service_role;
set local request.jwt.claims = '{"role": "service_role"}';
select is(jsonb_array_length(pgflow_public.list_schedules()), 24, 'service_role lists all');
select is(jsonb_array_length(pgflow_public.list_schedules('digest', '20000000-0000-4000-8000-000000000001')), 2, 'or those of a user');
select is(pgflow_public.schedule_flow('inner', '@daily', owner_id => '20000000-0000-4000-8000-000000000001') ->> 'made_by', 'sql', 'makes one for a user');
select is(pgflow_public.pause_schedule('given', '20000000-0000-4000-8000-000000000001') ->> 'schedule_slug', 'given', 'changes all');
select throws_ok($$ select pgflow_public.pause_schedule('given') $$, 'PT404', null, 'by slug and owner');

-- The rules hold at each time, too
reset role;
create or replace function pgflow.may_start(flow_slug text, owner_id uuid, quantity int) returns boolean language sql as $$
  select owner_id <> '20000000-0000-4000-8000-000000000002'
$$;
set local pgflow.now = '2026-03-02 00:00+00';
select pgflow.start_due_schedules();
select is((select count(*) from pgflow.runs where owner_id = '20000000-0000-4000-8000-000000000002'), 0::bigint, 'a quota is asked for');
select is(
  (select last_problem from pgflow.schedules where schedule_slug = 's1' or schedule_slug = 'digest' and owner_id = '20000000-0000-4000-8000-000000000002' order by schedule_slug limit 1),
  'the owner may not start flow "digest" now', 'and the row says so'
);
select is(
  (select array_agg(metadata ->> 'schedule' order by metadata ->> 'schedule') from pgflow.runs where owner_id = '20000000-0000-4000-8000-000000000001'),
  array['digest', 'inner'], 'runs belong to the user'
);
select pgflow.register_flow('{"flow_slug": "digest", "start_role": "authenticated", "steps": [{"step_slug": "a"}]}');
update pgflow.schedules set overlap = 'allow';
set local pgflow.now = '2026-03-03 00:00+00';
select pgflow.start_due_schedules();
select is(
  (select last_problem from pgflow.schedules where schedule_slug = 'digest' and owner_id = '20000000-0000-4000-8000-000000000001'),
  'users may not schedule flow "digest"', 'a flow that is not schedulable any more is not started'
);
select is((select last_problem from pgflow.schedules where schedule_slug = 'ours'), null, 'but the project''s own schedules go on');

select * from finish();
rollback;
