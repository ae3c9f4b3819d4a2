begin;
select plan(16);
set local pgflow.now = '2030-01-01 00:00+00';

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

--   a ─▶ b ─▶ d        leaves: d, e, lone
--   └──▶ c ─▶ d
--        └──▶ e
select pgflow.create_flow('f');
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'lone');
select pgflow.add_step('f', 'b', deps_slugs => array['a']);
select pgflow.add_step('f', 'c', deps_slugs => array['a']);
select pgflow.add_step('f', 'd', deps_slugs => array['b', 'c']);
select pgflow.add_step('f', 'e', deps_slugs => array['c']);
select pgflow.start_flow('f', '1', run_id => pg_temp.run());
create temp table version_at_start as select ctid as version from pgflow.runs;

select pgflow.complete_task(pg_temp.run(), 'a', 0, '"A"');
select set_eq(
  $$ select step_slug from pgflow.step_states where status = 'started' $$, array['b', 'c', 'lone'], 'a step unblocks all that waited for it only'
);
select pgflow.complete_task(pg_temp.run(), 'b', 0, '"B"');
select is(
  (select (status, remaining_deps)::text from pgflow.step_states where step_slug = 'd'), '(created,1)', 'a join waits for its last dep'
);
-- Both of a batch: the dep of two steps, and a leaf.
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
set local pgflow.now = '2030-01-01 00:01+00';
select pgflow.settle_tasks(jsonb_build_array(
  jsonb_build_object('run_id', pg_temp.run(), 'step_slug', 'c', 'task_index', 0, 'attempt', 1, 'output', 'C'),
  jsonb_build_object('run_id', pg_temp.run(), 'step_slug', 'lone', 'task_index', 0, 'attempt', 1, 'output', null)
));
select results_eq(
  $$ select step_slug, remaining_deps, remaining_tasks, initial_tasks, started_at from pgflow.step_states where status = 'started' order by step_slug $$,
  $$ values ('d', 0, 1, 1, '2030-01-01 00:01+00'::timestamptz), ('e', 0, 1, 1, '2030-01-01 00:01+00') $$,
  'then it starts'
);
select results_eq(
  $$ select step_slug, input from pgflow.claim_tasks(array['f'], 100, gen_random_uuid()) order by step_slug $$,
  $$ values ('d', '{"run": 1, "b": "B", "c": "C"}'::jsonb), ('e', '{"run": 1, "c": "C"}') $$,
  'with the outputs of its deps, not of theirs'
);
select pgflow.complete_task(pg_temp.run(), 'd', 0, '{"d": 1}');
select is((select status from pgflow.runs), 'started', 'a run waits for its last step');
select is((select ctid from pgflow.runs), (select version from version_at_start), 'its row, with its input, was not written again');
select pgflow.complete_task(pg_temp.run(), 'e', 0, '[]');
select results_eq(
  $$ select status, output, error, started_at, completed_at from pgflow.runs $$,
  $$ values ('completed', '{"d": {"d": 1}, "e": [], "lone": null}'::jsonb, null,
             '2030-01-01 00:00+00'::timestamptz, '2030-01-01 00:01+00'::timestamptz) $$,
  'its output is that of the leaves'
);
select is((select count(*) from pgmq.q_f), 0::bigint, 'no message is left');
select is_empty($$ select * from pgflow.step_tasks where status <> 'completed' $$, 'nor a task open');

select is(
  (select array_agg(step ->> 'step_slug') from jsonb_array_elements(pgflow_public.get_run(pg_temp.run()) -> 'steps') step),
  array['a', 'lone', 'b', 'c', 'd', 'e'],
  'a snapshot has its steps in the order of the definition'
);

-- Any JSON value
select pgflow.create_flow('pair'), pgflow.add_step('pair', 'a'), pgflow.add_step('pair', 'b', deps_slugs => array['a']);
create temp table outputs (n int, output jsonb);
insert into outputs values
  (11, 'null'), (12, 'false'), (13, '0'), (14, '""'), (15, '"123"'), (16, '"null"'), (17, '[]'), (18, '{}'), (19, '{"error": "no"}');
select pgflow.start_flow('pair', '1', run_id => pg_temp.run(n)) from outputs order by n;
select pgflow.claim_tasks(array['pair'], 100, gen_random_uuid());
select is(
  (select bool_and(applied) from pgflow.settle_tasks((
    select jsonb_agg(jsonb_build_object(
      'run_id', pg_temp.run(n), 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'output', output
    )) from outputs
  ))),
  true,
  'null, false, 0, "", strings that look like something else, [] and {} are outputs'
);
select results_eq(
  $$ select ss.output from pgflow.step_states ss where flow_slug = 'pair' and step_slug = 'a' order by run_id $$,
  $$ select output from outputs order by n $$,
  'kept as they are'
);
select results_eq(
  $$ select input -> 'a' from pgflow.claim_tasks(array['pair'], 100, gen_random_uuid()) order by run_id $$,
  $$ select output from outputs order by n $$,
  'in the input of the next step'
);
select pgflow.settle_tasks((
  select jsonb_agg(jsonb_build_object(
    'run_id', pg_temp.run(n), 'step_slug', 'b', 'task_index', 0, 'attempt', 1, 'output', output
  )) from outputs
));
select results_eq(
  $$ select output from pgflow.runs where flow_slug = 'pair' order by run_id $$,
  $$ select jsonb_build_object('b', output) from outputs order by n $$,
  'in the run''s output'
);
select results_eq(
  $$ select event -> 'output' from pgflow.run_event_records join pgflow.runs using (run_id)
     where flow_slug = 'pair' and event ->> 'step_slug' = 'b' and event ->> 'type' = 'step:completed' order by run_id $$,
  $$ select output from outputs order by n $$,
  'and in events'
);
select results_eq(
  $$ select pgflow_public.get_run(pg_temp.run(n)) -> 'steps' -> 1 -> 'output' from outputs order by n $$,
  $$ select output from outputs order by n $$,
  'and snapshots'
);

select * from finish();
rollback;
