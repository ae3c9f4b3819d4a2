begin;
select plan(22);
set local timezone = 'UTC';
set local pgflow.now = '2026-03-01 12:00:30+00';

create function pg_temp.register(schedules jsonb, version int default 1, more jsonb default '{}') returns setof text language sql as $$
  select (pgflow.register_flow(jsonb_build_object(
    'flow_slug', case version when 1 then 'f' else 'f_v' || version end, 'alias', 'f', 'version', version,
    'steps', '[{"step_slug": "a"}]'::jsonb, 'schedules', schedules
  ) || more)).flow_slug
$$;
create view pg_temp.now_there as
select schedule_slug, alias, made_by, cron, time_zone, input, overlap, catch_up, catch_up_window, spread, paused_at is not null as is_paused
from pgflow.schedules;

select pg_temp.register('[
  {"schedule_slug": "night", "cron": "0 3 * * *"},
  {"schedule_slug": "all_of_it", "cron": "@hourly", "time_zone": "Europe/Berlin", "input": [1], "overlap": "cancel", "catch_up": "none", "catch_up_window": 60, "spread": 30}
]');
select results_eq(
  'select * from pg_temp.now_there order by 1',
  $$ values
    ('all_of_it', 'f', 'flow', '@hourly', 'Europe/Berlin', '[1]'::jsonb, 'cancel', 'none', 60, 30, false),
    ('night', 'f', 'flow', '0 3 * * *', 'UTC', 'null', 'skip', 'last', 86400, 0, false) $$,
  'a definition declares schedules'
);
select is(
  pgflow.flow_definition('f') -> 'schedules' -> 0,
  '{"schedule_slug": "all_of_it", "cron": "@hourly", "time_zone": "Europe/Berlin", "input": [1], "overlap": "cancel", "catch_up": "none", "catch_up_window": 60, "spread": 30}',
  'flow_definition gives them back'
);
create temp table before as select s.ctid as place, s.* from pgflow.schedules s;
select lives_ok($$ select pgflow.register_flow(pgflow.flow_definition('f')) $$, 'it can be registered again');
select set_eq('select s.ctid as place, s.* from pgflow.schedules s', 'table before', 'which writes nothing');

select pgflow.pause_schedule('night');
select pgflow.schedule('by_hand', 'f', '@daily');
select pg_temp.register('[{"schedule_slug": "night", "cron": "0 4 * * *"}]');
select results_eq(
  'select schedule_slug, made_by, cron, is_paused from pg_temp.now_there order by 1',
  $$ values ('by_hand', 'sql', '@daily', false), ('night', 'flow', '0 4 * * *', true) $$,
  'what is declared no more is removed; a pause stays, and so does what SQL has made'
);
select pg_temp.register('[{"schedule_slug": "by_hand", "cron": "@weekly"}]');
select results_eq('select schedule_slug, made_by, cron from pg_temp.now_there', $$ values ('by_hand', 'flow', '@weekly') $$, 'a definition can take one over');
select throws_ok(
  $$ select pgflow.schedule('by_hand', 'f', '@daily') $$, 'PT409', 'schedule "by_hand" belongs to the definition of flow "f"', 'SQL cannot'
);

-- Versions
select pg_temp.register('[{"schedule_slug": "by_hand", "cron": "@daily"}, {"schedule_slug": "new", "cron": "@daily"}]', 2);
select pg_temp.register('[{"schedule_slug": "old", "cron": "@daily"}]');
select results_eq('select schedule_slug, alias from pg_temp.now_there order by 1', $$ values ('by_hand', 'f'), ('new', 'f') $$, 'the newest version decides');
select is(pgflow.flow_definition('f') -> 'schedules', null, 'an older one has none');
set local pgflow.now = '2026-03-02 00:00+00';
select pgflow.start_due_schedules();
select results_eq('select distinct flow_slug from pgflow.runs', $$ values ('f_v2') $$, 'and is started');
select pg_temp.register(null, 2);
select is((select count(*) from pgflow.schedules), 0::bigint, 'a definition without schedules has none');

-- schedulable is an option
select is((select schedulable from pgflow.flows where flow_slug = 'f_v2'), false, 'users may not schedule a flow, by default');
select pg_temp.register(null, 2, '{"schedulable": true}');
select is((select schedulable from pgflow.flows where flow_slug = 'f_v2'), true, 'a definition allows it');

-- What is refused, with nothing changed
select throws_ok(
  format('select pg_temp.register(%L)', schedules), 'PT400', 'the definition of flow "f" is invalid: ' || message, message
) from (values
  ('{}', 'schedules is {}, not an array of objects'),
  ('[{"cron": "@daily"}]', 'schedule 1: schedule_slug is missing'),
  ('[{"schedule_slug": "x"}]', 'schedule "x": cron is missing'),
  ('[{"schedule_slug": "x", "cron": 5}]', 'schedule "x": cron is 5, not a text'),
  ('[{"schedule_slug": "x", "cron": "@daily"}, {"schedule_slug": "x", "cron": "@daily"}]', 'schedule "x": an earlier schedule has the same slug'),
  ('[{"schedule_slug": "x", "cron": "@daily", "timezone": "UTC"}]',
   'schedule "x": it has the unknown key "timezone": the keys are cron, input, spread, overlap, catch_up, time_zone, schedule_slug, catch_up_window')
) wrong (schedules, message);
select throws_ok($$ select pg_temp.register('[{"schedule_slug": "x", "cron": "nightly"}]', 2) $$, 'PT400', 'the cron expression "nightly" does not have five fields, but 1', 'an expression that is none');
select throws_ok(
  $$ select pgflow.register_flow('{"flow_slug": "g", "steps": [{"step_slug": "a"}], "schedules": [{"schedule_slug": "taken", "cron": "@daily"}]}') from pgflow.schedule('taken', 'f', '@daily') $$,
  'PT409', 'schedule "taken" is one of flow "f", not of "g"', 'a slug of another flow'
);
select is((select count(*) from pgflow.flows where flow_slug = 'g'), 0::bigint, 'which then is not made');

select * from finish();
rollback;
