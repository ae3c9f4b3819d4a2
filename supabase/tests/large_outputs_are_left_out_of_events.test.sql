begin;
select plan(9);

create function pg_temp.run() returns uuid return uuid '10000000-0000-4000-8000-000000000001';
-- A JSON string of so many bytes, as text.
create function pg_temp.output(bytes int) returns jsonb return to_jsonb(repeat('x', bytes - 2));
create function pg_temp.completed(step text) returns jsonb
return (select e.event - 'at' - 'seq' from pgflow.run_event_records e where e.event ->> 'type' = 'step:completed' and e.event ->> 'step_slug' = step);

select pgflow.create_flow('f');
select pgflow.add_step('f', slug) from unnest(array['fits', 'large', 'wide']) slug;
select pgflow.start_flow('f', '1', run_id => pg_temp.run());
select pgflow.complete_task(pg_temp.run(), 'fits', 0, pg_temp.output(16384));
select pgflow.complete_task(pg_temp.run(), 'large', 0, pg_temp.output(16385));
select pgflow.complete_task(pg_temp.run(), 'wide', 0, to_jsonb(repeat('é', 8192)));

select is(
  pg_temp.completed('fits'),
  jsonb_build_object('type', 'step:completed', 'step_slug', 'fits', 'output', pg_temp.output(16384)),
  'an output of 16 KB rides along'
);
select is(
  pg_temp.completed('large'), '{"type": "step:completed", "step_slug": "large", "output_omitted": true}'::jsonb,
  'a larger one is left out, and the event says so'
);
select is(
  pg_temp.completed('wide'), '{"type": "step:completed", "step_slug": "wide", "output_omitted": true}'::jsonb, 'bytes are counted, not characters'
);
select is(
  (select e.event - 'at' - 'seq' from pgflow.run_event_records e where e.event ->> 'type' = 'run:completed'),
  '{"type": "run:completed", "step_slug": null, "output_omitted": true}'::jsonb,
  'so it is for runs'
);
select results_eq(
  $$ select event from jsonb_array_elements(pgflow_public.get_run_events(pg_temp.run())) event $$,
  $$ select e.event from pgflow.run_event_records e where e.run_id = pg_temp.run() order by e.seq $$,
  'get_run_events shows the same'
);
select is(
  (select step -> 'output' from jsonb_array_elements(pgflow_public.get_run(pg_temp.run()) -> 'steps') step where step ->> 'step_slug' = 'large'),
  pg_temp.output(16385),
  'get_run has the outputs of steps'
);
select is(pgflow_public.get_run(pg_temp.run()) #> '{output,large}', pg_temp.output(16385), 'and of runs');
select is(length(pgflow_public.get_run(pg_temp.run()) #>> '{output,wide}'), 8192, 'whole');
select is_empty(
  $$ select * from pgflow.run_events where octet_length(data::text) > 1000 $$, 'the log does not store outputs a second time'
);

select * from finish();
rollback;
