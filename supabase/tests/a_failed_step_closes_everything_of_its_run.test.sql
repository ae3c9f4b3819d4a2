begin;
select plan(14);
set local pgflow.now = '2030-01-01 00:00+00';

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

-- A flow whose run, when b fails, has a step in each state: done is completed, waiting is retrying, claimed is started,
-- queued nobody has claimed, later waits for b.
select pgflow.create_flow('f');
select pgflow.add_step('f', slug) from unnest(array['done', 'b', 'waiting', 'claimed']) slug;
select pgflow.add_step('f', 'queued', deps_slugs => array['done']);
select pgflow.add_step('f', 'later', deps_slugs => array['b', 'done']);
select pgflow.start_flow('f', '1', run_id => pg_temp.run(n)) from generate_series(1, 2) n;

-- Run 2 is a bystander; the messages of both are in one queue.
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
select pgflow.complete_task(pg_temp.run(n), 'done', 0, '1') from generate_series(1, 2) n;
select pgflow.fail_task(pg_temp.run(n), 'waiting', 0, 'not yet') from generate_series(1, 2) n;
create temp table bystander as
select (select jsonb_agg(s order by step_slug) from pgflow.step_states s where run_id = pg_temp.run(2)) as states,
       (select jsonb_agg(t order by step_slug) from pgflow.step_tasks t where run_id = pg_temp.run(2)) as tasks,
       (select jsonb_agg(q order by msg_id) from pgmq.q_f q where message ->> 'run_id' = pg_temp.run(2)::text) as messages;

select ok(
  (select applied from pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
    'run_id', pg_temp.run(1), 'step_slug', 'b', 'task_index', 0, 'attempt', 1, 'error', 'boom', 'permanent', true
  )))),
  'b fails for good'
);
select results_eq(
  $$ select status, error, output, failed_at, completed_at from pgflow.runs where run_id = pg_temp.run(1) $$,
  $$ values ('failed', 'boom', null::jsonb, '2030-01-01 00:00+00'::timestamptz, null::timestamptz) $$,
  'the run has failed with its error'
);
select results_eq(
  $$ select step_slug, status, error from pgflow.step_states where run_id = pg_temp.run(1) order by step_slug $$,
  $$ values ('b', 'failed', 'boom'), ('claimed', 'cancelled', null), ('done', 'completed', null),
            ('later', 'cancelled', null), ('queued', 'cancelled', null), ('waiting', 'cancelled', 'not yet') $$,
  'no step is open: what had not ended is cancelled'
);
select results_eq(
  $$ select step_slug, status from pgflow.step_tasks where run_id = pg_temp.run(1) order by step_slug $$,
  $$ values ('b', 'failed'), ('claimed', 'cancelled'), ('done', 'completed'), ('queued', 'cancelled'), ('waiting', 'cancelled') $$,
  'no task is open'
);
select is_empty(
  $$ select * from pgmq.q_f where message ->> 'run_id' = pg_temp.run(1)::text $$, 'no message is in the queue'
);
select is(
  (select array_agg(message ->> 'step_slug' order by message ->> 'step_slug') from pgmq.a_f
   where message ->> 'run_id' = pg_temp.run(1)::text),
  array['b', 'claimed', 'done', 'queued', 'waiting'],
  'all of them are archived'
);
select results_eq(
  $$ select step_slug, type from pgflow.run_events where run_id = pg_temp.run(1) and seq > (
       select max(seq) from pgflow.run_events where run_id = pg_temp.run(1) and type = 'step:retrying'
     ) order by seq $$,
  $$ values ('b', 'step:failed'), ('waiting', 'step:cancelled'), ('claimed', 'step:cancelled'), ('queued', 'step:cancelled'),
            ('later', 'step:cancelled'), (null, 'run:failed') $$,
  'the log says so'
);

-- Who comes late
select results_eq(
  $$ select active from pgflow.extend_leases(jsonb_build_array(jsonb_build_object(
       'run_id', pg_temp.run(1), 'step_slug', 'claimed', 'task_index', 0, 'attempt', 1
     ))) $$,
  array[false],
  'a worker that still works on the run is told to stop'
);
select results_eq(
  $$ select applied from pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
       'run_id', pg_temp.run(1), 'step_slug', 'claimed', 'task_index', 0, 'attempt', 1, 'output', 1
     ))) $$,
  array[false],
  'its result is stale'
);
select is(
  (select type from pgflow.run_events where run_id = pg_temp.run(1) order by seq desc limit 1), 'run:failed',
  'nothing follows run:failed'
);

-- The bystander
select results_eq(
  $$ select (select jsonb_agg(s order by step_slug) from pgflow.step_states s where run_id = pg_temp.run(2)),
            (select jsonb_agg(t order by step_slug) from pgflow.step_tasks t where run_id = pg_temp.run(2)),
            (select jsonb_agg(q order by msg_id) from pgmq.q_f q where message ->> 'run_id' = pg_temp.run(2)::text) $$,
  'table bystander',
  'other runs of the flow notice nothing'
);

-- Two steps that fail together, and one that asks for another attempt
select pgflow.settle_tasks((
  select jsonb_agg(jsonb_build_object(
    'run_id', pg_temp.run(2), 'step_slug', step, 'task_index', 0, 'attempt', 1, 'error', step, 'permanent', permanent
  ))
  from (values ('claimed', false), ('b', true)) r (step, permanent)
));
select results_eq(
  $$ select step_slug, status, error from pgflow.step_states where run_id = pg_temp.run(2) order by step_slug $$,
  $$ values ('b', 'failed', 'b'), ('claimed', 'cancelled', null), ('done', 'completed', null),
            ('later', 'cancelled', null), ('queued', 'cancelled', null), ('waiting', 'cancelled', 'not yet') $$,
  'a step that would be retried is cancelled when its run fails in the same batch'
);
select is((select count(*) from pgmq.q_f), 0::bigint, 'and leaves no message');

-- A step that would unblock another, together with one that fails
select pgflow.start_flow('f', '1', run_id => pg_temp.run(3));
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
select pgflow.settle_tasks((
  select jsonb_agg(jsonb_build_object('run_id', pg_temp.run(3), 'step_slug', step, 'task_index', 0, 'attempt', 1) || result)
  from (values ('done', '{"output": 1}'::jsonb), ('b', '{"error": "boom", "permanent": true}')) r (step, result)
));
select results_eq(
  $$ select ss.step_slug, ss.status, ss.started_at is null, t.status
     from pgflow.step_states ss left join pgflow.step_tasks t using (run_id, step_slug)
     where ss.run_id = pg_temp.run(3) and ss.step_slug in ('done', 'queued') order by ss.step_slug $$,
  $$ values ('done', 'completed', false, 'completed'), ('queued', 'cancelled', true, null) $$,
  'a step whose last dep completes as its run fails never starts'
);

select * from finish();
rollback;
