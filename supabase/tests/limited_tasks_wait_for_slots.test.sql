begin;
select plan(49);
set local pgflow.now = '2030-01-01 00:00:00Z';

create function pg_temp.run(n int) returns uuid language sql as $$ select format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid $$;
create function pg_temp.claim(flow text, quantity int default 100) returns text[] language sql as $$
  select coalesce(array_agg(right(t.run_id::text, 2) || t.step_slug || t.task_index order by t.run_id, t.step_slug, t.task_index), '{}')
  from pgflow.claim_tasks(array[flow], quantity, null) t
$$;
create function pg_temp.tasks(flow text) returns text language sql as $$
  select string_agg(tasks.n || ' ' || tasks.state, ', ' order by tasks.state)
  from (
    select coalesce(t.waits_for, t.status) as state, count(*) as n from pgflow.step_tasks t where t.flow_slug = flow group by 1
  ) tasks
$$;
create function pg_temp.limit(slug text, flow text, step text, path text, running int, rate_count int default null, rate_period int default null)
returns void language sql as $$
  insert into pgflow.limits (limit_slug, running, rate_count, rate_period, changed_at) values (slug, running, rate_count, rate_period, now())
  on conflict do nothing;
  insert into pgflow.limit_uses values (flow, step, slug, path);
  update pgflow.steps set is_limited = true where flow_slug = flow and step in ('*', step_slug);
$$;

-- One limit, without keys
select pgflow.create_flow('one'), pgflow.add_step('one', 'a', max_attempts => 3, base_delay => 10), pgflow.add_step('one', 'b', array['a']);
select pg_temp.limit('api', 'one', 'a', null, 2);
select count(*) from generate_series(1, 5) n, pgflow.start_flow('one', to_jsonb(n), run_id => pg_temp.run(n));
select is(pg_temp.tasks('one'), '5 slot', 'tasks of a limited step wait, without a message');
select is((select array_agg(distinct waits_for) from pgflow.step_states where step_slug = 'a'), array['slot'], 'as their steps say');
select is(
  (select data from pgflow.run_events where run_id = pg_temp.run(1) and type = 'step:started'),
  '{"initial_tasks": 1, "waits_for": "slot", "due_at": null}', 'and their events'
);
select is(pg_temp.claim('one'), array['01a0', '02a0'], 'a claim gets as many as there are slots, the oldest first');
select is(pg_temp.tasks('one'), '3 slot, 2 started', 'the others wait');
select is((select waits_for from pgflow.step_states where run_id = pg_temp.run(1) and step_slug = 'a'), null, 'a step that is admitted waits no longer');
select is(
  (select data from pgflow.run_events where run_id = pg_temp.run(1) and type = 'step:admitted'), '{"waits_for": null}', 'its event says so'
);
select is((select count(*) from pgmq.q_one), 2::bigint, 'only what is admitted has a message');
select is(pg_temp.claim('one'), '{}', 'another claim gets nothing');
select is((select count(*) from pgflow.alarms), 0::bigint, 'and nobody looks again until something changes');
select results_eq(
  $$ select limit_slug, value, running, running_limit, waiting from pgflow.limits_now $$,
  $$ values ('api', '', 2::bigint, 2, 3::bigint) $$, 'limits_now tells'
);
select pgflow.complete_task(pg_temp.run(1), 'a', 0, '1');
select is(pg_temp.claim('one'), array['01b0', '03a0'], 'a slot that is freed goes to the next; other steps wait for none');
select pgflow.fail_task(pg_temp.run(2), 'a', 0, 'oh');
select is(
  (select concat_ws(' ', status, waits_for, due_at - now_is.at, attempts_count) from pgflow.step_tasks,
     (values (pgflow.now())) now_is (at) where run_id = pg_temp.run(2) and step_slug = 'a'),
  'waiting time 00:00:20 1', 'an attempt that failed gives its slot up, and waits for its time'
);
select is(
  (select data - 'retry_at' from pgflow.run_events where run_id = pg_temp.run(2) and type = 'step:retrying'),
  '{"error": "oh", "retries": 1, "waits_for": "slot"}', 'as its event says'
);
select is(pg_temp.claim('one'), array['04a0'], 'to the next');
set local pgflow.now = '2030-01-01 00:00:20Z';
select is(pgflow.next_due_at(), pgflow.now(), 'the clock knows when it is due');
select is((select settled from pgflow.tick()), 0, 'a tick admits nothing where no slot is free');
select is((select waits_for from pgflow.step_tasks where run_id = pg_temp.run(2) and step_slug = 'a'), 'slot', 'it waits for a slot then');
select is(pgflow.next_due_at(), null, 'and is due no more');
select pgflow.cancel_run(pg_temp.run(3));
select is((select settled from pgflow.tick()), 1, 'a run that is cancelled frees its slot; a tick admits, too');
select is(pg_temp.claim('one'), array['05a0'], 'by the time since which a task is ready');
delete from pgflow.runs where run_id = pg_temp.run(4);
select is(pg_temp.claim('one'), array['02a0'], 'so does one that is deleted');
select pgflow.complete_task(pg_temp.run(n), 'a', 0, '1') from unnest(array[2, 5]) n;
select is((select count(slot_keys) from pgflow.step_tasks where status not in ('waiting', 'queued', 'started')), 0::bigint, 'what is closed has no keys');

-- By a path; fast changes of the limit
select pgflow.create_flow('by'), pgflow.add_step('by', 'a');
select pg_temp.limit('tenants', 'by', '*', 'run.tenant', 1);
select count(*) from generate_series(1, 6) n, pgflow.start_flow('by', jsonb_build_object('tenant', n % 2), run_id => pg_temp.run(10 + n));
select is(pg_temp.claim('by'), array['11a0', '12a0'], 'each value has a limit of its own');
update pgflow.limits set running = 2 where limit_slug = 'tenants';
select pgflow.recheck_limit('tenants');
select is(pg_temp.claim('by'), array['13a0', '14a0'], 'a limit that is raised counts at once');
update pgflow.limits set running = 1 where limit_slug = 'tenants';
select pgflow.complete_task(pg_temp.run(11), 'a', 0, '1');
select is(pg_temp.claim('by'), '{}', 'one that is lowered admits nothing until enough have ended');
select pgflow.complete_task(pg_temp.run(13), 'a', 0, '1');
select is(pg_temp.claim('by'), array['15a0'], 'then the next');
select is(pgflow.slot_value(v), r, 'the value ' || coalesce(v::text, 'that is missing'))
from (values ('"x"'::jsonb, 'x'), ('7', '7'), ('null', ''), (null, ''), ('{"a": 1}', '{"a": 1}'), (to_jsonb(repeat('x', 201)), md5(repeat('x', 201)))) t (v, r);

-- Two limits, one of which flows share
select pgflow.create_flow('left'), pgflow.add_step('left', 'a'), pgflow.create_flow('right'), pgflow.add_step('right', 'a');
select pg_temp.limit('model', 'left', 'a', null, 3), pg_temp.limit('model', 'right', 'a', null, 3), pg_temp.limit('people', 'left', 'a', 'run', 1);
select pgflow.start_flow('left', v, run_id => pg_temp.run(20 + n)) from (values (1, '"u"'::jsonb), (2, '"u"'), (3, '"u"'), (4, '"v"')) t (n, v);
select pgflow.start_flow('right', '0', run_id => pg_temp.run(25 + n)) from generate_series(0, 3) n;
select is(pg_temp.claim('left'), array['21a0', '24a0'], 'a task needs a slot of each of its limits');
select is(pg_temp.claim('right'), array['25a0'], 'flows share what has one name');
select pgflow.complete_task(pg_temp.run(25), 'a', 0, '1');
select is(pg_temp.claim('left') || pg_temp.claim('right'), array['26a0'], 'a slot goes to the first that can use it');
select pgflow.complete_task(pg_temp.run(21), 'a', 0, '1');
select is(pg_temp.claim('left'), array['22a0'], 'by age');

-- Maps
select pgflow.create_flow('map'), pgflow.add_step('map', 'a', step_type => 'map');
update pgflow.steps set is_limited = true, opt_concurrency = 3 where flow_slug = 'map';
select pgflow.start_flow('map', (select jsonb_agg(n) from generate_series(0, 9) n), run_id => pg_temp.run(30));
select is(pg_temp.claim('map', 2), array['30a0', '30a1'], 'a map with a concurrency');
select is(pg_temp.claim('map'), array['30a2'], 'has that many items going on');
select count(*) from generate_series(0, 1) n, pgflow.complete_task(pg_temp.run(30), 'a', n, to_jsonb(n));
select is(pg_temp.claim('map'), array['30a3', '30a4'], 'and goes on as they end');
select is((select waits_for from pgflow.step_states where run_id = pg_temp.run(30)), null, 'its step does not wait');

-- Rates
select pgflow.create_flow('rate'), pgflow.add_step('rate', 'a', step_type => 'map');
select pg_temp.limit('quota', 'rate', 'a', null, null, 60, 60);
select pgflow.start_flow('rate', (select jsonb_agg(n) from generate_series(0, 99) n), run_id => pg_temp.run(40));
select is(cardinality(pg_temp.claim('rate')), 3, 'a rate admits a few at once');
select is(pgflow.next_due_at() - pgflow.now(), interval '0.15 seconds', 'and says when the next may start');
set local pgflow.now = '2030-01-01 00:00:20.1Z';
select is(cardinality(pg_temp.claim('rate')), 0, 'before nothing does');
set local pgflow.now = '2030-01-01 00:00:20.15Z';
select is(cardinality(pg_temp.claim('rate')), 1, 'then one');

select pgflow.create_flow('slow'), pgflow.add_step('slow', 'a', step_type => 'map');
select pg_temp.limit('daily', 'slow', 'a', null, null, 1, 86400);
select pgflow.start_flow('slow', '[1, 2, 3]', run_id => pg_temp.run(41));
select is(cardinality(pg_temp.claim('slow')), 1, 'one a day');
update pgflow.limits set rate_count = 60, rate_period = 60 where limit_slug = 'daily';
select pgflow.recheck_limit('daily');
select is(cardinality(pg_temp.claim('slow')), 0, 'a rate that is raised');
set local pgflow.now = '2030-01-01 00:00:21.2Z';
select is(cardinality(pg_temp.claim('slow')), 1, 'counts from then on');

-- Many combinations of keys
select pgflow.create_flow('many'), pgflow.add_step('many', 'a');
select pg_temp.limit('shared', 'many', 'a', null, 2), pg_temp.limit('own', 'many', 'a', 'run', 1);
select count(*) from generate_series(1, 100) n, pgflow.start_flow('many', to_jsonb(n), run_id => pg_temp.run(100 + n));
create function pg_temp.drain() returns int[] language plpgsql as $$
declare
  sizes int[] := '{}';
  claimed record;
begin
  loop
    select count(*)::int as size, array_agg(t.run_id) as run_ids into claimed from pgflow.claim_tasks(array['many'], 100, null) t;
    sizes := sizes || claimed.size;
    exit when claimed.size = 0;
    perform pgflow.complete_task(run_id, 'a', 0, '1') from unnest(claimed.run_ids) run_id;
  end loop;
  return sizes;
end
$$;
select is(pg_temp.drain(), array_fill(2, array[50]) || 0, 'all have their turn, two at a time');

select * from finish();
rollback;
