begin;
select plan(44);

create function pg_temp.version(n int, change jsonb default '{}') returns pgflow.flows language sql as $$
  select pgflow.register_flow(jsonb_build_object(
    'flow_slug', case n when 1 then 'greet' else 'greet_v' || n end, 'alias', 'greet', 'version', n,
    'steps', jsonb_build_array(jsonb_build_object('step_slug', 'step_' || n))
  ) || change)
$$;
create function pg_temp.started() returns text language sql as $$ select flow_slug from pgflow.start_flow('greet', '{}') $$;

-- One version
select is((select (v.alias, v.version)::text from pg_temp.version(1) v), '(greet,1)', 'the first version');
select is_empty('select * from pgflow.flow_aliases', 'needs no alias');
select is(pg_temp.started(), 'greet', 'and is what its slug starts');

-- The second one
select is((select (v.flow_slug, v.alias, v.version, v.queue_name)::text from pg_temp.version(2) v), '(greet_v2,greet,2,greet_v2)', 'a second version');
select results_eq('select alias, flow_slug from pgflow.flow_aliases', $$ values ('greet', 'greet_v2') $$, 'moves the alias');
select is(pg_temp.started(), 'greet_v2', 'which starts it from then on');
select results_eq(
  $$ select flow_slug from pgflow.start_flows('greet', '[1, 2]') $$, $$ values ('greet_v2'), ('greet_v2') $$, 'in batches too'
);
select results_eq(
  $$ select step_slug from pgflow.claim_tasks(array['greet'], 10, null) $$, $$ values ('step_1') $$,
  'the run of the first version goes on in its shape'
);
select is((select count(*) from pgflow.claim_tasks(array['greet', 'greet_v2'], 10, null)), 3::bigint, 'a worker takes tasks of both');
select is(
  (select (flow_slug, status)::text from pgflow.runs where run_id = (
    select (pgflow.complete_task(run_id, 'step_1', 0, '1')).run_id from pgflow.runs where flow_slug = 'greet'
  )), '(greet,started)', 'its task is completed'
);
select is((select status from pgflow.runs where flow_slug = 'greet'), 'completed', 'and so is it');

-- The second call, and older versions
select lives_ok('select pg_temp.version(1); select pg_temp.version(2)', 'both can be registered again');
select is((select flow_slug from pgflow.flow_aliases), 'greet_v2', 'the older one does not move the alias back');
select pg_temp.version(4), pg_temp.version(3);
select is((select flow_slug from pgflow.flow_aliases), 'greet_v4', 'nor does an older one that is new');
select is(pg_temp.started(), 'greet_v4', 'the newest is started');
select is((select flow_slug from pgflow.start_flow('greet_v3', '{}')), 'greet_v3', 'another one by its own slug');
update pgflow.flow_aliases set flow_slug = 'greet' where alias = 'greet';
select pg_temp.version(4);
select is(pg_temp.started(), 'greet', 'an alias that was moved by hand stays, until there is a newer version');
select pg_temp.version(5);
select is(pg_temp.started(), 'greet_v5', 'than all before');
select pgflow.register_flow('{"flow_slug": "late_v2", "alias": "late", "version": 2, "steps": [{"step_slug": "a"}]}');
select is((select flow_slug from pgflow.start_flow('late', '{}')), 'late_v2', 'no version before it is needed');
select pgflow.register_flow('{"flow_slug": "late", "steps": [{"step_slug": "a"}]}');
select is((select flow_slug from pgflow.start_flow('late', '{}')), 'late_v2', 'nor changes one that comes late anything');

-- Idempotency keys
create temp table first as select * from pgflow.start_flow('greet', '{"x": 1}', idempotency_key => 'k');
select pg_temp.version(6);
select is(
  (select run_id from pgflow.start_flow('greet', '{"x": 1}', idempotency_key => 'k')), (select run_id from first),
  'a key of an older version finds its run'
);
select throws_ok(
  $$ select pgflow.start_flow('greet', '{"x": 2}', idempotency_key => 'k') $$, 'PT409', null, 'with another input it is an error'
);
select results_eq(
  $$ select flow_slug, idempotency_key from pgflow.start_flows('greet', '[1, {"x": 1}]', array['l', 'k']) $$,
  $$ values ('greet_v6', 'l'), ('greet_v5', 'k') $$, 'in batches it finds some and starts the others'
);
select is(
  (select run_id from pgflow.start_flow('greet', '{"x": 1}', run_id => (select run_id from first))), (select run_id from first),
  'so does a run_id'
);
select isnt(
  (select run_id from pgflow.start_flow(
    'greet', '{"x": 1}', idempotency_key => 'k', owner_id => '20000000-0000-4000-8000-000000000001'
  )), (select run_id from first), 'another owner''s key is another key'
);

-- Refusals
select throws_ok(
  $$ select pgflow.register_flow('{"flow_slug": "other", "alias": "greet", "version": 6, "steps": [{"step_slug": "a"}]}') $$,
  'PT409', 'version 6 of "greet" is flow "greet_v6", not "other"', 'a version is one flow'
);
select throws_ok(
  $$ select pgflow.register_flow('{"flow_slug": "greet_v6", "steps": [{"step_slug": "step_6"}]}') $$,
  'PT409', 'flow "greet_v6" is version 6 of "greet", not version 1 of "greet_v6"', 'and stays that version'
);
select throws_ok(
  $$ select pgflow.register_flow('{"flow_slug": "greet", "alias": "other", "version": 2, "steps": [{"step_slug": "step_1"}]}') $$,
  'PT409', null, 'so does the first one'
);
select throws_ok(
  format('select pgflow.register_flow(%L)', definition), 'PT400', message, message
) from (values
  ('{"flow_slug": "y", "version": 2, "steps": [{"step_slug": "a"}]}', 'flow "y" cannot be version 2 of "y"'),
  ('{"flow_slug": "y", "alias": "z", "steps": [{"step_slug": "a"}]}', 'flow "y" cannot be version 1 of "z"'),
  ('{"flow_slug": "y", "alias": "z", "version": 0, "steps": [{"step_slug": "a"}]}', 'flow "y" cannot be version 0 of "z"'),
  ('{"flow_slug": "y", "alias": "z-", "version": 2, "steps": [{"step_slug": "a"}]}', '"z-" is not a valid slug')
) bad (definition, message);
select is_empty($$ select from pgflow.flows where flow_slug in ('y', 'other') $$, 'a refused version does not exist');

-- What still runs
select pgflow.register_worker(gen_random_uuid(), 'w', array['greet', 'greet_v2']);
select results_eq(
  $$ select version, flow_slug, is_newest, running_runs, oldest_started_at is not null, workers
     from pgflow.flow_versions where alias = 'greet' order by version $$,
  $$ values
    (1, 'greet', false, 1::bigint, true, 1::bigint), (2, 'greet_v2', false, 3, true, 1), (3, 'greet_v3', false, 1, true, 0),
    (4, 'greet_v4', false, 1, true, 0), (5, 'greet_v5', false, 2, true, 0), (6, 'greet_v6', true, 2, true, 0) $$,
  'flow_versions shows what goes on of each'
);

-- Clients
select is(
  (select jsonb_agg(r -> 'flow_slug') from jsonb_array_elements(pgflow_public.list_runs('greet_v6')) r),
  '["greet_v6", "greet_v6"]', 'the runs of one version are listed by its slug'
);
select is(jsonb_array_length(pgflow_public.list_runs('greet')), 11, 'and those of all by the alias');
select pg_temp.version(6, '{"start_role": "anon"}');
set local role anon;
select is(pgflow_public.start_flow('greet', input => '{}') ->> 'flow_slug', 'greet_v6', 'a client starts the newest version, if its start_role allows it');
select throws_ok($$ select pgflow_public.start_flow('greet_v5', input => '{}') $$, 'PT403', null, 'and no other');
select throws_ok($$ select pgflow_public.start_flow('nope', input => '{}') $$, 'PT404', null, 'of a flow that is there');
reset role;

-- Deleting
select throws_ok($$ select pgflow.delete_flow('nope') $$, 'PT404', 'flow "nope" does not exist', 'what is not there cannot be deleted');
select throws_ok(
  $$ select pgflow.delete_flow('greet') $$, 'PT409', 'flow "greet" has 1 runs that go on and 1 that have ended', 'nor a flow that has runs'
);
delete from pgflow.runs;
select throws_ok($$ select pgflow.delete_flow('greet_v6') $$, 'PT409', 'flow "greet_v6" is what "greet" starts', 'nor the version that is started');
select pgflow.delete_flow(flow_slug) from unnest(array['greet', 'greet_v2', 'greet_v3', 'greet_v4', 'greet_v5', 'greet_v6']) flow_slug;
select is_empty($$ select from pgflow.flow_versions where alias = 'greet' $$, 'without runs each can be deleted, the newest last');
select is_empty($$ select from pgmq.list_queues() where queue_name like 'greet%' $$, 'with its queue');

select * from finish();
rollback;
