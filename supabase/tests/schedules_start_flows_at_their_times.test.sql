begin;
select plan(65);
set local timezone = 'UTC';

create function pg_temp.tick(at timestamptz, out started int, out next_due_at timestamptz)
language plpgsql
as $$
begin
  perform set_config('pgflow.now', at::text, true);
  select t.* into started, next_due_at from pgflow.start_due_schedules() t;
end
$$;
create view pg_temp.started as
select r.metadata ->> 'schedule' as slug, r.metadata ->> 'nominal_at' as nominal_at, r.status, r.flow_slug, r.input, r.owner_id, r.run_id
from pgflow.runs r;
create function pg_temp.finish(slug text) returns setof text language sql as $$
  select t.status from pgflow.runs r, pgflow.complete_task(r.run_id, 'a', 0, '1') t where r.metadata ->> 'schedule' = slug and r.status = 'started'
$$;

select function_returns('pgflow', 'schedule', array['text', 'text', 'text', 'jsonb', 'text', 'text', 'text', 'int', 'int', 'uuid', 'uuid'], 'pgflow.schedules');
set local pgflow.now = '2026-03-01 12:00:30+00';
select pgflow.create_flow('f'), pgflow.add_step('f', 'a');
select is(pgflow.start_due_schedules()::text, '(0,)', 'without schedules nothing is due');

-- A schedule
select results_eq(
  $$ select alias, made_by, cron, time_zone, input, overlap, catch_up, catch_up_window, spread, owner_id, next_at, due_at, last_at, last_run_id
     from pgflow.schedule('night', 'f', '30 2 * * *', '{"days": 1}', 'europe/berlin') $$,
  $$ values ('f', 'sql', '30 2 * * *', 'Europe/Berlin', '{"days": 1}'::jsonb, 'skip', 'last', 86400, 0, null::uuid,
       '2026-03-02 01:30+00'::timestamptz, '2026-03-02 01:30+00'::timestamptz, null::timestamptz, null::uuid) $$,
  'has its next time and its defaults'
);
select is(pg_temp.tick('2026-03-02 01:29:59+00')::text, '(0,"2026-03-02 01:30:00+00")', 'starts nothing before its time');
select is(pg_temp.tick('2026-03-02 01:30:00+00')::text, '(1,"2026-03-03 01:30:00+00")', 'starts a run at its time, and says when the next one is due');
select results_eq(
  'select slug, nominal_at, flow_slug, input, owner_id from pg_temp.started',
  $$ values ('night', '2026-03-02T01:30:00Z', 'f', '{"days": 1}'::jsonb, null::uuid) $$, 'whose metadata say of which schedule and time it is'
);
select is((select idempotency_key from pgflow.runs), 'schedule night 2026-03-02T01:30:00Z', 'and whose key too');
select is(
  (select array_agg(status || ' ' || step_slug) from pgflow.step_tasks), array['queued a'], 'its first step is queued'
);
select is(pg_temp.tick('2026-03-02 01:30:00+00')::text, '(0,"2026-03-03 01:30:00+00")', 'once');
update pgflow.schedules set next_at = '2026-03-02 01:30+00', due_at = '2026-03-02 01:30+00', overlap = 'allow';
select is(pg_temp.tick('2026-03-02 01:31:00+00')::text, '(0,"2026-03-03 01:30:00+00")', 'also if its row is set back: the key decides');
update pgflow.schedules set overlap = 'skip';

-- overlap
select is((pg_temp.tick('2026-03-03 01:30+00')).started, 0, 'skip: none while the run before is open');
select results_eq(
  'select last_at, last_problem from pgflow.schedules',
  $$ select '2026-03-03 01:30+00'::timestamptz, format('run %s was still open', run_id) from pg_temp.started $$, 'and the row says why'
);
select pg_temp.finish('night');
select is((pg_temp.tick('2026-03-04 01:30+00')).started, 1, 'but one after it has ended');
select is((select last_problem from pgflow.schedules), null, 'then there is no problem any more');
select is((pgflow.schedule('night', 'f', '30 2 * * *', '{"days": 1}', 'Europe/Berlin', overlap => 'allow')).next_at, '2026-03-05 01:30+00', 'an option is changed in place');
select is((pg_temp.tick('2026-03-05 01:30+00')).started, 1, 'allow: one beside it');
select is((pgflow.schedule('night', 'f', '30 2 * * *', '{"days": 2}', 'Europe/Berlin', overlap => 'cancel')).input, '{"days": 2}', 'an input, too');
select is((pg_temp.tick('2026-03-06 01:30+00')).started, 1, 'cancel: one');
select results_eq(
  $$ select right(nominal_at, 12), status, input ->> 'days' from pg_temp.started order by nominal_at desc limit 3 $$,
  $$ values ('06T01:30:00Z', 'started', '2'), ('05T01:30:00Z', 'cancelled', '1'), ('04T01:30:00Z', 'started', '1') $$,
  'in place of the one before'
);
select is((select error from pgflow.runs where status = 'cancelled'), 'schedule "night" started another run', 'which says why');
select results_eq(
  $$ select next_at, last_at from pgflow.schedule('night', 'f', '0 12 * * *', time_zone => 'Asia/Kolkata') $$,
  $$ values ('2026-03-06 06:30+00'::timestamptz, '2026-03-06 01:30+00'::timestamptz) $$, 'another expression has other times'
);
select pgflow.unschedule('night');

-- catch_up: nobody ticks for some days
select pgflow.schedule(c, 'f', '0 */6 * * *', overlap => 'allow', catch_up => c, catch_up_window => 43200)
from unnest(array['last', 'none', 'all']) c;
select pgflow.schedule('one', 'f', '0 */6 * * *', overlap => o, catch_up => 'all') from unnest(array['skip']) o;
select is(pg_temp.tick('2026-03-08 18:01+00')::text, '(5,"2026-03-09 00:00:00+00")', 'after a gap');
select results_eq(
  $$ select slug, array_agg(substr(nominal_at, 9, 5) order by nominal_at) from pg_temp.started where slug <> 'night' group by slug order by slug $$,
  $$ values ('all', '{08T12,08T18}'::text[]), ('last', '{08T18}'), ('none', '{08T18}'), ('one', '{08T00}') $$,
  'last starts the last one, all those within the window, and skip one that is open'
);
select is((pg_temp.tick('2026-03-09 23:59+00')).started, 3, 'later');
select results_eq(
  $$ select slug, array_agg(substr(nominal_at, 9, 5) order by nominal_at) from pg_temp.started
     where nominal_at > '2026-03-08T19' group by slug order by slug $$,
  $$ values ('all', '{09T12,09T18}'::text[]), ('last', '{09T18}') $$, 'none starts none that is more than two minutes late'
);
select alike((select last_problem from pgflow.schedules where schedule_slug = 'none'), 'nothing started it until %', 'and the row says so');
select is((pg_temp.tick('2027-03-09 23:59+00')).started, 3, 'a year later');
select results_eq(
  $$ select slug, count(*) from pg_temp.started where nominal_at > '2026-03-10' group by slug order by slug $$,
  $$ values ('all', 2::bigint), ('last', 1) $$, 'windows are kept'
);
select pgflow.unschedule(s.schedule_slug) from pgflow.schedules s;
set local pgflow.now = '2026-03-01 12:00:30+00';
select pgflow.schedule('minutes', 'f', '* * * * *', overlap => 'allow', catch_up => 'all');
select is(pg_temp.tick('2026-03-01 15:00+00')::text, '(100,"2026-03-01 13:41:00+00")', 'of many a hundred are started at once, the oldest first');
select is(pg_temp.tick('2026-03-01 15:00+00')::text, '(80,"2026-03-01 15:01:00+00")', 'then the others');
select is(pg_temp.tick('2026-03-01 12:30+00')::text, '(0,"2026-03-01 15:01:00+00")', 'a clock that goes back starts none again');
select pgflow.unschedule('minutes');

-- A pause
select pgflow.schedule('hours', 'f', '0 * * * *');
select is((pgflow.pause_schedule('hours')).paused_at, '2026-03-01 12:30+00', 'is a time');
select is(pg_temp.tick('2026-03-01 13:30+00')::text, '(0,)', 'in which nothing is due');
select is((select next_at from pgflow.schedules), '2026-03-01 14:00+00', 'times pass');
select is((pgflow.pause_schedule('hours')).paused_at, '2026-03-01 12:30+00', 'a second call changes nothing');
select is((pgflow.schedule('hours', 'f', '0 * * * *', '1')).paused_at, '2026-03-01 12:30+00', 'nor does another input');
set local pgflow.now = '2026-03-01 16:30+00';
select is((pgflow.resume_schedule('hours')).next_at, '2026-03-01 17:00+00', 'it is resumed from its next time on');
select is(pg_temp.tick('2026-03-01 16:30+00')::text, '(0,"2026-03-01 17:00:00+00")', 'without what has passed');
update pgflow.schedules set paused_at = '2026-03-01 16:31+00';
select pg_temp.tick('2026-03-01 18:30+00');
update pgflow.schedules set paused_at = null;
select is(pg_temp.tick('2026-03-01 18:31+00')::text, '(0,"2026-03-01 19:00:00+00")', 'the row is the switch, for SQL by hand too');
select results_eq(
  $$ select status, metadata, input from pgflow.run_schedule('hours') $$,
  $$ values ('started', '{"schedule": "hours", "nominal_at": "2026-03-01T18:31:00Z"}'::jsonb, '1'::jsonb) $$, 'run_schedule starts a run now'
);
select is((pg_temp.tick('2026-03-01 19:00+00')).started, 0, 'which counts as the run before');
select pgflow.unschedule('hours');

-- spread
select is(
  (select count(distinct s.due_at - s.next_at) > 10 and bool_and(s.due_at - s.next_at between '0' and '10 minutes')
   from generate_series(1, 30) n, pgflow.schedule('spread' || n, 'f', '0 0 * * *', spread => 600) s),
  true, 'distributes the times of many schedules'
);
create temp table due as select s.schedule_slug, s.due_at - s.next_at as part from pgflow.schedules s;
select is((pg_temp.tick('2026-03-02 00:10+00')).started, 30, 'they are all started');
select is((select count(distinct nominal_at) from pg_temp.started where slug like 'spread%'), 1::bigint, 'for the same nominal time');
select results_eq(
  'select schedule_slug, due_at - next_at from pgflow.schedules order by 1', 'select * from due order by 1', 'each keeps its part'
);
select pgflow.unschedule(s.schedule_slug) from pgflow.schedules s;

-- What cannot be started does not keep others from it
select pgflow.create_flow('broken');
select pgflow.schedule(slug, flow, '0 * * * *') from (values ('fine1', 'f'), ('broken', 'broken'), ('fine2', 'f')) s (slug, flow);
select is((pg_temp.tick('2026-03-02 01:00+00')).started, 2, 'two of three');
select results_eq(
  'select schedule_slug, last_problem, next_at from pgflow.schedules order by 1',
  $$ values ('broken', 'flow "broken" has no steps', '2026-03-02 02:00+00'::timestamptz), ('fine1', null, '2026-03-02 02:00+00'), ('fine2', null, '2026-03-02 02:00+00') $$,
  'the other one says why'
);
select pgflow.register_flow('{"flow_slug": "strict", "steps": [{"step_slug": "a"}]}');
select pgflow.schedule('replaced', 'strict', '30 1 * * *', overlap => 'cancel');
select pgflow.run_schedule('replaced');
create function pg_temp.refuse() returns trigger language plpgsql as $$ begin raise 'no room'; end $$;
create trigger refuse before insert on pgflow.runs for each row when (new.flow_slug = 'strict') execute function pg_temp.refuse();
select pg_temp.tick('2026-03-02 01:30+00');
drop trigger refuse on pgflow.runs;
select results_eq(
  $$ select r.status, s.last_problem from pgflow.schedules s join pgflow.runs r on r.run_id = s.last_run_id where s.schedule_slug = 'replaced' $$,
  $$ values ('started', 'no room') $$, 'a run is cancelled for no other that cannot be started'
);
select pgflow.unschedule('replaced');
select pgflow.delete_flow('broken');
select is((select count(*) from pgflow.schedules), 2::bigint, 'a flow that is deleted takes its schedules with it');
select pg_temp.finish('fine1'), pg_temp.finish('fine2');
set local pgflow.now = '2026-03-02 02:00+00';
select pgflow.maintain();
select is((select count(*) from pg_temp.started where status = 'started' and slug like 'fine%'), 2::bigint, 'maintain starts them, too');
select is((select started from pgflow.start_due_schedules(quantity => 0)), 0, 'of none there is none');

-- Owners
select pgflow.schedule('own', 'f', '10 * * * *', owner_id => '20000000-0000-4000-8000-000000000001');
select pgflow.schedule('own', 'f', '30 * * * *', owner_id => '20000000-0000-4000-8000-000000000002');
select is((pg_temp.tick('2026-03-02 02:10+00')).started, 1, 'a slug is unique for an owner');
select is((select owner_id from pg_temp.started where slug = 'own'), '20000000-0000-4000-8000-000000000001', 'who owns the runs');
select pgflow.forget_owner('20000000-0000-4000-8000-000000000001');
select is((select count(*) from pgflow.schedules where schedule_slug = 'own'), 1::bigint, 'and whose schedules are forgotten, too');

-- What is refused
select throws_ok($$ select pgflow.schedule('x', 'nope', '@daily') $$, 'PT404', 'flow "nope" does not exist', 'an unknown flow');
select throws_ok($$ select pgflow.schedule('a-b', 'f', '@daily') $$, 'PT400', '"a-b" is not a valid slug', 'a slug that is none');
select throws_ok($$ select pgflow.schedule('x', 'f', '0 0 30 2 *') $$, 'PT400', null, 'an expression without a time');
select throws_ok(format('select pgflow.schedule(''x'', ''f'', ''@daily'', %s)', option), 'PT400', 'schedule "x" has an invalid option', option)
from unnest(array['overlap => ''wait''', 'catch_up => ''some''', 'spread => -1', 'catch_up_window => 40000000', 'input => null']) option;
select throws_ok($$ select pgflow.schedule('fine1', 'g', '@daily') from pgflow.create_flow('g') $$, 'PT409', 'schedule "fine1" is one of flow "f", not of "g"', 'a slug of another flow');
select throws_ok($$ select pgflow.unschedule('x') $$, 'PT404', 'schedule "x" does not exist', 'one that is not there');
select throws_ok($$ select pgflow.run_schedule('x') $$, 'PT404', null, 'to run it');

select * from finish();
rollback;
