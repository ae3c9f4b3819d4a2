begin;
select plan(13);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.version(step text) returns text language sql as $$
  select extract(epoch from coalesce(
    (select completed_at from pgflow.step_states where run_id = pg_temp.run(1) and step_slug = step),
    (select started_at from pgflow.runs where run_id = pg_temp.run(1))
  ))::text
$$;
create function pg_temp.claim(inline_limit int) returns setof pgflow.step_task_record language sql as $$
  select * from pgflow.claim_tasks(array['f'], 100, gen_random_uuid(), inline_limit => inline_limit)
$$;

create function pg_temp.give_back() returns int language sql as $$
  select pgflow.hand_back(jsonb_agg(jsonb_build_object(
    'run_id', run_id, 'step_slug', step_slug, 'task_index', task_index, 'attempt', attempts_count
  ))) from pgflow.step_tasks where status = 'started'
$$;

select pgflow.create_flow('f'), pgflow.add_step('f', 'big'), pgflow.add_step('f', 'small'), pgflow.add_step('f', 'skipped', run_if => '{"run": {"a": 1}}', when_unmet => 'skip');
select pgflow.add_step('f', 'both', array['big', 'small', 'skipped']);
select pgflow.add_step('f', 'map', array['small', 'big'], step_type => 'map', map_source => 'small');
select pgflow.start_flow('f', to_jsonb(repeat('r', 980)), run_id => pg_temp.run(1));
select results_eq(
  'select input, refs from pg_temp.claim(1000) order by step_slug',
  $$ values (jsonb_build_object('run', repeat('r', 980)), null::jsonb), (jsonb_build_object('run', repeat('r', 980)), null) $$,
  'what is below the limit comes along'
);
-- It is stored in some dozens of bytes.
select pgflow.complete_task(pg_temp.run(1), 'big', 0, to_jsonb(repeat('b', 100000)));
select pgflow.complete_task(pg_temp.run(1), 'small', 0, '[{"a": 1}, null]');
select results_eq(
  $$ select step_slug, input, refs from pg_temp.claim(950) order by step_slug, task_index $$,
  $$ values
    ('both', '{"small": [{"a": 1}, null]}'::jsonb, jsonb_build_object('run', pg_temp.version('run'), 'big', pg_temp.version('big'))),
    ('map', '{"a": 1}', jsonb_build_object('run', pg_temp.version('run'), 'big', pg_temp.version('big'), 'small', pg_temp.version('small'))),
    ('map', 'null', jsonb_build_object('run', pg_temp.version('run'), 'big', pg_temp.version('big'), 'small', pg_temp.version('small'))) $$,
  'above it, a value is named with its version; beside its item, a map''s task has everything by name'
);
select pg_temp.give_back();
select results_eq($$ select step_slug, input ? 'big', input ? 'run', refs is null from pg_temp.claim(100002) where step_slug = 'both' $$,
  $$ values ('both', true, true, true) $$, 'a higher limit lets it come along');
select pg_temp.give_back();
select results_eq($$ select step_slug, input, refs from pg_temp.claim(null) where step_slug = 'map' order by task_index $$,
  $$ values ('map', '{"a": 1}'::jsonb, null::jsonb), ('map', 'null', null) $$, 'without a limit there are no references');
select pg_temp.give_back();
select is((select input ->> 'big' = repeat('b', 100000) from pgflow.claim_tasks(array['f'], 1, null)), true, 'and all comes along');
select pg_temp.give_back();
-- Random text is stored in as many bytes as it has.
update pgflow.runs set input = (select jsonb_agg(md5(n::text)) from generate_series(1, 100) n) where run_id = pg_temp.run(1);
select results_eq($$ select input, refs ? 'run' from pg_temp.claim(1000) where step_slug = 'both' $$,
  $$ values ('{"small": [{"a": 1}, null]}'::jsonb, true) $$, 'neither depends on how it is stored');
select pg_temp.give_back();

select is(pgflow.fetch_value(pg_temp.run(1), 'big', pg_temp.version('big')), to_jsonb(repeat('b', 100000)), 'an output is fetched');
select is(pgflow.fetch_value(pg_temp.run(1), 'run', pg_temp.version('run')), (select input from pgflow.runs), 'and a run''s input');
select throws_ok($$ select pgflow.fetch_value(pg_temp.run(2), 'run', '1') $$, 'PT404', null, 'no run');
select throws_ok($$ select pgflow.fetch_value(pg_temp.run(1), 'big', '1') $$, 'PT404', null, 'another version');
select throws_ok($$ select pgflow.fetch_value(pg_temp.run(1), 'run', null) $$, 'PT404', null, 'no version');
select throws_ok($$ select pgflow.fetch_value(pg_temp.run(1), 'both', pg_temp.version('run')) $$, 'PT404', null, 'a step without an output');

-- A step that runs again has an output of another version.
update pgflow.step_states set completed_at = completed_at + interval '1 microsecond' where step_slug = 'big';
select isnt(
  (select refs ->> 'big' from pg_temp.claim(1000) where step_slug = 'both'),
  pgflow.version_of((select completed_at - interval '1 microsecond' from pgflow.step_states where step_slug = 'big')),
  'a version is of one completion'
);

select * from finish();
rollback;
