begin;
select plan(18);
set local pgflow.now = '2030-01-01 00:00:00Z';

create function pg_temp.run(n int) returns uuid language sql as $$ select format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid $$;
create function pg_temp.tasks(n int) returns text language sql as $$
  select string_agg(coalesce(t.waits_for || coalesce(' ' || c.status, ''), t.status), ', ' order by t.task_index)
  from pgflow.step_tasks t left join pgflow.runs c on c.run_id = t.child_run_id where t.run_id = pg_temp.run(n)
$$;
create function pg_temp.child(n int, i int) returns uuid language sql as $$
  select t.child_run_id from pgflow.step_tasks t where t.run_id = pg_temp.run(n) and t.task_index = i
$$;

select pgflow.create_flow('child'), pgflow.add_step('child', 'work');
select pgflow.create_flow('parent'),
       pgflow.add_step('parent', 'each', step_type => 'map', options => '{"child_flow": "child", "concurrency": 2, "when_item_fails": "collect"}');
select pgflow.start_flow('parent', '["a", "b", "c", "d"]', pg_temp.run(1));
select is(pg_temp.tasks(1), 'slot, slot, slot, slot', 'items of a map of sub-flows wait for slots');
select is((select count(distinct child_run_id) from pgflow.step_tasks), 4::bigint, 'and know the ids of their runs');
select pgflow.tick() from generate_series(1, 2);
select is(pg_temp.tasks(1), 'run started, run started, slot, slot', 'as many as there are slots start');
select is((select array_agg(input order by parent_task_index) from pgflow.runs where depth = 1), '{"\"a\"","\"b\""}', 'the first ones');
select is((select count(*) from pgmq.q_parent), 0::bigint, 'without messages to workers of the parent');
select results_eq(
  'select running, waiting, oldest_waiting_since from pgflow.limits_now', $$ values (2::bigint, 2::bigint, '2030-01-01 00:00:00Z'::timestamptz) $$,
  'a child that runs holds a slot'
);
select pgflow.complete_task(pg_temp.child(1, 1), 'work', 0, '1');
select pgflow.tick() from generate_series(1, 3);
select is(pg_temp.tasks(1), 'run started, completed, run started, slot', 'which the next one gets when it has ended');
-- Through a claim
select pgflow.cancel_run(pg_temp.child(1, 0));
select pgflow.settle_and_claim('[]', '{parent,child}', 10, pg_temp.run(9)) from generate_series(1, 2);
select is(pg_temp.tasks(1), 'failed, completed, run started, run started', 'also where a claim admits it');
select is(
  (select array_agg(attempts_count order by task_index) from pgflow.step_tasks where run_id = pg_temp.run(1)), '{1,1,1,1}',
  'a run is one attempt, however it ends'
);
select is(
  (select array_agg(distinct t.flow_slug) from pgflow.step_tasks t where t.status = 'started'), '{child}', 'workers only get tasks of children'
);
select pgflow.complete_task(pg_temp.child(1, i), 'work', 0, '1') from generate_series(2, 3) i;
select pgflow.tick() from generate_series(1, 2);
select is((select output -> 'each' -> 0 ->> 'status' from pgflow.runs where run_id = pg_temp.run(1)), 'failed', 'it completes with what became of each');
select is((select count(*) from pgflow.limits_now), 0::bigint, 'and holds no slot any more');

-- A step that is no map says what it waits for
select pgflow.create_flow('one'), pgflow.add_step('one', 'sub', options => '{"child_flow": "child", "limits": [{"limit_slug": "api", "running": 1}]}');
select pgflow.start_flow('one', '1', pg_temp.run(2)), pgflow.start_flow('one', '2', pg_temp.run(3));
select pgflow.tick() from generate_series(1, 2);
select is(
  (select array_agg(waits_for order by run_id) from pgflow.step_states where flow_slug = 'one'), '{run,slot}', 'a slot, then a run'
);
select is(
  (select data from pgflow.run_events where run_id = pg_temp.run(2) and type = 'step:admitted'), '{"waits_for": "run"}', 'as the event says'
);
select pgflow.cancel_run(pg_temp.run(2));
select pgflow.tick() from generate_series(1, 2);
select is(pg_temp.tasks(2) || '; ' || pg_temp.tasks(3), 'cancelled; run started', 'a parent that ends frees its slot at once');
select pgflow.fail_task(pg_temp.run(3), 'sub', 0, 'by hand');
select is((select error from pgflow.runs where run_id = pg_temp.run(3)), 'by hand', 'a limited sub-flow has no other attempt either');
select pgflow.start_flow('one', '4', pg_temp.run(4));
select pgflow.tick();
select pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
  'run_id', pg_temp.run(4), 'step_slug', 'sub', 'task_index', 0, 'error', 'by hand', 'uncounted', true
)));
select is(pg_temp.tasks(4), 'failed', 'nor one before its run has started');
select pgflow.tick() from generate_series(1, 2);
select is((select count(*) from pgflow.alarms), 0::bigint, 'no alarm is left');

select * from finish();
rollback;
