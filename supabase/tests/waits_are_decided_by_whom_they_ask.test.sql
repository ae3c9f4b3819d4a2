begin;
select plan(77);

set local pgflow.now = '2030-01-01T00:00:00Z';
create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.user_id(n int) returns uuid return format('20000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
-- Acts as a user (1 is the owner of all runs, 2 an assignee), as a user without an id (0), or as a role.
create function pg_temp.become(n int) returns void language sql as $$
  select set_config('role', 'authenticated', true), set_config('request.jwt.claims', jsonb_strip_nulls(jsonb_build_object('role', 'authenticated', 'sub', case when n > 0 then pg_temp.user_id(n) end))::text, true)
$$;
create function pg_temp.act_as(role text) returns void language sql as $$ select set_config('role', role, true), set_config('request.jwt.claims', jsonb_build_object('role', role)::text, true) $$;
create function pg_temp.status(n int) returns text language sql security definer as $$ select status from pgflow.step_states where run_id = pg_temp.run(n) and step_slug = 'a' $$;
-- What a call answers: an SQLSTATE, or ok.
create function pg_temp.tried(call text) returns text language plpgsql as $$
begin
  execute call;
  return 'ok';
exception when others then
  return sqlstate;
end
$$;

select pgflow.create_flow('of_' || kind) from unnest(array['service_role', 'owner', 'authenticated', 'assignees', 'others']) kind;
select pgflow.add_step('of_' || kind, 'draft'),
       pgflow.add_step('of_' || kind, 'a', array['draft'], step_type => 'wait', completed_by => replace(kind, 'others', 'authenticated'),
         assignees_path => case kind when 'assignees' then 'draft.by' end, not_by_owner => kind = 'others', timeout => 3600)
from unnest(array['service_role', 'owner', 'authenticated', 'assignees', 'others']) kind;
-- Of each flow two runs in which the wait has begun, and one in which it has not.
create temp table runs (n int, kind text);
grant select on runs to public;
insert into runs select 10 * k + n, kind from unnest(array['service_role', 'owner', 'authenticated', 'assignees', 'others']) with ordinality t (kind, k), generate_series(1, 3) n;
select pgflow.start_flow('of_' || kind, '{"secret": true}', run_id => pg_temp.run(n), owner_id => pg_temp.user_id(1)) from runs order by n;
select pgflow.complete_task(pg_temp.run(n), 'draft', 0, jsonb_build_object('text', n, 'by', jsonb_build_array(pg_temp.user_id(2), pg_temp.user_id(3)))) from runs where n % 10 < 3 order by n;

-- What each role is answered: of a wait that has begun, of one that has not
create temp table expected (who int, kind text, begun text, early text);
grant select on expected to public;
insert into expected values
  (1, 'service_role', 'PT403', 'PT403'), (1, 'owner', 'ok', 'ok'), (1, 'authenticated', 'ok', 'ok'), (1, 'assignees', 'PT403', 'PT403'), (1, 'others', 'PT403', 'PT403'),
  (2, 'service_role', 'PT404', 'PT404'), (2, 'owner', 'PT404', 'PT404'), (2, 'authenticated', 'ok', 'PT404'), (2, 'assignees', 'ok', 'PT404'), (2, 'others', 'ok', 'PT404'),
  (4, 'service_role', 'PT404', 'PT404'), (4, 'owner', 'PT404', 'PT404'), (4, 'authenticated', 'ok', 'PT404'), (4, 'assignees', 'PT404', 'PT404'), (4, 'others', 'ok', 'PT404'),
  (0, 'service_role', 'PT404', 'PT404'), (0, 'owner', 'PT404', 'PT404'), (0, 'authenticated', 'PT404', 'PT404'), (0, 'assignees', 'PT404', 'PT404'), (0, 'others', 'PT404', 'PT404');
create function pg_temp.answers(who int, n int, call text) returns setof text language plpgsql as $$
declare
  one record;
begin
  for one in select r.n, r.kind from runs r where r.n % 10 = answers.n order by r.n loop
    perform pg_temp.become(who);
    begin
      return next one.kind || ' ' || pg_temp.tried(format(call, pg_temp.run(one.n)));
      raise sqlstate 'PT999'; -- as if it had not been
    exception when sqlstate 'PT999' then null;
    end;
  end loop;
  reset role;
end
$$;
select is(
  array(select pg_temp.answers(who, phase, call)), array(select kind || ' ' || case phase when 1 then e.begun else replace(e.early, 'ok', early_ok) end from expected e join runs r using (kind) where e.who = t.who and r.n % 10 = 1 order by r.n),
  format('user %s, %s, %s', who, case phase when 1 then 'begun' else 'early' end, call)
)
from (select distinct who from expected) t
cross join generate_series(1, 3, 2) phase
cross join (values ('select pgflow_public.complete_wait(%L, $$a$$, $$1$$)', 'ok'), ('select pgflow_public.reject_wait(%L, $$a$$, $$no$$)', 'PT409')) calls (call, early_ok)
order by who, phase, call;
select pg_temp.act_as('anon');
select is(pg_temp.tried(format('select pgflow_public.complete_wait(%L, $$a$$, $$1$$)', pg_temp.run(n))), 'PT404', 'anon: ' || kind) from runs where n % 10 = 1 order by n;
select is(pgflow_public.list_waits(), '[]', 'nothing asks anon');
reset role;

-- The same answer whether a run, a wait or neither exists
select pg_temp.become(4);
select throws_ok(
  format('select pgflow_public.complete_wait(%L, %L, $$1$$)', pg_temp.run(n), slug), 'PT404',
  format('wait "%s" of run %s does not exist, or you are not asked', slug, pg_temp.run(n)), format('run %s, %s', n, slug)
) from (values (11, 'a'), (11, 'draft'), (11, 'none'), (41, 'a'), (99, 'a')) t (n, slug);
select throws_ok('select pgflow_public.reject_wait(null, null, null)', 'PT404', null, 'null');
reset role;

-- Lists
create function pg_temp.listed(who int, flow text default null) returns int[] language plpgsql as $$
declare
  found int[];
begin
  perform pg_temp.become(who);
  found := array(select right(w ->> 'run_id', 3)::int from jsonb_array_elements(pgflow_public.list_waits(flow)) w);
  reset role;
  return found;
end
$$;
select is(pg_temp.listed(1), array[21, 22, 31, 32], 'the owner may decide what asks the owner or everybody');
select is(pg_temp.listed(2), array[31, 32, 41, 42, 51, 52], 'an assignee, what asks them or everybody');
select is(pg_temp.listed(4), array[31, 32, 51, 52], 'somebody else, what asks everybody');
select is(pg_temp.listed(0), '{}', 'somebody without an id, nothing');
select is(pg_temp.listed(2, 'of_assignees'), array[41, 42], 'of one flow');
select is(pg_temp.listed(2, 'of_none'), '{}', 'or of none');
select pg_temp.become(2);
select is(
  pgflow_public.list_waits('of_assignees', quantity => 1),
  '[{"run_id": "10000000-0000-4000-8000-000000000041", "flow_slug": "of_assignees", "step_slug": "a", "started_at": "2030-01-01T00:00:00+00:00", "due_at": "2030-01-01T01:00:00+00:00",
    "input": {"run": {"secret": true}, "draft": {"text": 41, "by": ["20000000-0000-4000-8000-000000000002", "20000000-0000-4000-8000-000000000003"]}}, "output_schema": null}]',
  'each with the payload of its step, and no more'
);
select is(
  array(select right(w ->> 'run_id', 3)::int from jsonb_array_elements(pgflow_public.list_waits(quantity => 2, after => pgflow_public.list_waits(quantity => 2) -> 1)) w),
  array[41, 42], 'the next page'
);
select is(pgflow_public.list_waits(after => pgflow_public.list_waits() -> -1), '[]', 'after the last one there is none');
select is(jsonb_array_length(pgflow_public.list_waits(run_id => pg_temp.run(n))), expected, format('of run %s', n)) from (values (41, 1), (11, 0)) t (n, expected);
select is(pgflow_public.list_waits(quantity => n), '[]', n::text) from unnest(array[0, -1]) n;
select throws_ok(format('select pgflow_public.list_waits(after => %L)', after), 'PT400', null, after) from unnest(array['[]', '{}', '{"run_id": "x", "step_slug": "a", "started_at": "2030-01-01"}']) after;
select throws_ok(format('select pgflow_public.get_run(%L)', pg_temp.run(41)), 'PT404', null, 'an assignee does not see the run');
reset role;
set local request.jwt.claims = '{"role": "service_role"}';
set local role service_role;
select is(
  array(select right(w ->> 'run_id', 3)::int from jsonb_array_elements(pgflow_public.list_waits()) w), array[11, 12, 21, 22, 31, 32, 41, 42, 51, 52], 'the service role, all'
);
select is(jsonb_array_length(pgflow_public.list_waits(quantity => 3, after => pgflow_public.list_waits(quantity => 3) -> 2)), 3, 'page by page');
select is(pg_temp.tried(format('select pgflow_public.complete_wait(%L, $$a$$, $$1$$)', pg_temp.run(n))), 'ok', 'and it may complete all: ' || kind) from runs where n % 10 = 2 order by n;
select is(pg_temp.tried(format('select pgflow_public.complete_wait(%L, $$a$$, $$1$$)', pg_temp.run(n))), 'ok', 'before they begin, too: ' || kind) from runs where n % 10 = 3 order by n;
select is((pgflow_worker.tick() ->> 'settled')::int, 0, 'workers with a secret key tick');
reset role;
select is(pg_temp.listed(2), array[31, 41, 51], 'what is decided is listed no more');

-- A decision
select pg_temp.become(2);
select is(pg_temp.tried(format('select pgflow_public.complete_wait(%L, $$a$$, $$"fine"$$)', pg_temp.run(41))), 'ok', 'an assignee decides');
select is(pg_temp.tried(format('select pgflow_public.complete_wait(%L, $$a$$, $$"fine"$$)', pg_temp.run(41))), 'ok', 'and again the same');
select is(pg_temp.tried(format('select pgflow_public.complete_wait(%L, $$a$$, $$"bad"$$)', pg_temp.run(41))), 'PT409', 'but nothing else');
select pg_temp.become(3);
select is(pg_temp.tried(format('select pgflow_public.complete_wait(%L, $$a$$, $$"bad"$$)', pg_temp.run(41))), 'PT409', 'the other one is too late, and told so');
select is(pg_temp.tried(format('select pgflow_public.complete_wait(%L, $$a$$, to_jsonb(repeat($$x$$, 2000000)))', pg_temp.run(31))), 'PT413', 'a value has a size');
reset role;
set local request.jwt.claims = '';
select is(
  (select r.event -> 'actor' from pgflow.run_event_records r where r.run_id = pg_temp.run(41) and r.event ->> 'type' = 'step:completed' and r.event ->> 'step_slug' = 'a'),
  '{"id": "20000000-0000-4000-8000-000000000002", "role": "authenticated"}', 'the log says who'
);

-- Teams
create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text) returns boolean language sql set search_path = pg_catalog, pg_temp
as $$ select current_setting('request.jwt.claims', true)::jsonb ->> 'sub' like '%4' and action = any (string_to_array(current_setting('team.may'), ',')) $$;
set local team.may = 'view';
select pg_temp.become(4);
select throws_ok(format('select pgflow_public.complete_wait(%L, $$a$$, $$1$$)', pg_temp.run(21)), 'PT403', 'you may not decide wait "a" of run 10000000-0000-4000-8000-000000000021', 'who may only see a run');
select throws_ok(format('select pgflow_public.complete_wait(%L, $$b$$, $$1$$)', pg_temp.run(21)), 'PT404', 'run 10000000-0000-4000-8000-000000000021 has no wait "b"', 'learns what it has');
set local team.may = 'complete';
select is(pg_temp.tried(format('select pgflow_public.complete_wait(%L, $$a$$, $$1$$)', pg_temp.run(n))), expected, format('who may complete for the owner: %s', n)) from (values (21, 'ok'), (11, 'PT404'), (41, 'PT404')) t (n, expected);
reset role;

-- News of the list, to those who follow theirs
select pgflow.start_flow('of_assignees', '1', run_id => pg_temp.run(61)), pgflow.start_flow('of_others', '1', run_id => pg_temp.run(62));
create function pg_temp.news() returns setof text language sql as $$
  select right(m.topic, 2) || ' ' || string_agg(right(w ->> 'run_id', 2) || ' ' || (w ->> 'open'), ', ' order by w ->> 'run_id')
  from realtime.messages m cross join jsonb_array_elements(m.payload -> 'waits') w where m.event = 'waits' and m.private group by m.id, m.topic, m.inserted_at order by m.inserted_at
$$;
select pg_temp.become(n), pgflow_public.list_waits(watch => '30000000-0000-4000-8000-000000000001') from unnest(array[3, 4]) n;
reset role;
set local request.jwt.claims = '';
select is((select count(*) from pgflow.inbox_watches), 2::bigint, 'two follow theirs');
select pgflow.complete_task(pg_temp.run(n), 'draft', 0, jsonb_build_object('by', pg_temp.user_id(3))) from unnest(array[61, 62]) n;
select bag_eq('select * from pg_temp.news()', array['03 61 true', '03 62 true', '04 62 true'], 'each is told of what asks them');
delete from realtime.messages;
select pgflow.complete_wait(pg_temp.run(61), 'a'), pgflow.cancel_run(pg_temp.run(62));
select bag_eq('select * from pg_temp.news()', array['03 61 false', '03 62 false', '04 62 false'], 'and of what is over');
delete from realtime.messages;
set local pgflow.now = '2030-01-01T00:06:00Z';
select pgflow.retry_run(pg_temp.run(62));
select is_empty('select * from pg_temp.news()', 'for five minutes');
select is(pgflow.maintain() -> 'due', '0', 'upkeep');
select is_empty('select from pgflow.inbox_watches', 'forgets who does not follow any more');
select pgflow.forget_owner(pg_temp.user_id(2));
select is_empty($$ select from pgflow.wait_assignees where user_id = pg_temp.user_id(2) $$, 'a deleted user is forgotten');

select * from finish();
rollback;
