begin;
select plan(10);

create function pg_temp.claim(quantity int) returns table (flow_slug text, tasks bigint) language sql as $$
  select c.flow_slug, count(*) from pgflow.claim_tasks(array['flood', 'quiet', 'empty'], quantity, null) c group by 1
$$;
select pgflow.create_flow(flow), pgflow.add_step(flow, 'a') from unnest(array['flood', 'quiet', 'empty']) flow;
select pgflow.start_flows('flood', jsonb_agg(n)) from generate_series(1, 100) n;
select pgflow.start_flows('quiet', jsonb_agg(n)) from generate_series(1, 12) n;

select is((select sum(tasks) from pg_temp.claim(9)), 9::numeric, 'a claim gets as much as it asks for');
select ok(
  (select count(*) from pgflow.step_tasks where flow_slug = 'quiet' and status = 'started') between 3 and 6, 'a flood does not take all of it'
);
select ok(
  (select count(*) from pgflow.step_tasks where flow_slug = 'flood' and status = 'started') between 3 and 6, 'nor does it go without'
);
select pg_temp.claim(36);
select is((select count(*) from pgflow.step_tasks where flow_slug = 'quiet' and status = 'queued'), 0::bigint, 'the short queue is done while the long one is not');
select is((select sum(tasks) from pg_temp.claim(1000)), 100::numeric - 9 - 36 + 12, 'then all are for the long one');

-- A worker of many flows asks few of them while it settles.
select pgflow.create_flow('f_' || n), pgflow.add_step('f_' || n, 'a'), pgflow.add_step('f_' || n, 'b', array['a']) from generate_series(1, 40) n;
create function pg_temp.work(results jsonb) returns jsonb language sql as $$
  select w.tasks from pgflow.settle_and_claim(
    results, (select array_agg('f_' || n) from generate_series(1, 40) n), 10, '30000000-0000-4000-8000-000000000001'
  ) w
$$;
create function pg_temp.results(tasks jsonb) returns jsonb language sql as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'run_id', t ->> 'run_id', 'step_slug', t ->> 'step_slug', 'task_index', 0, 'attempt', t -> 'attempt', 'output', 1
  )), '[]') from jsonb_array_elements(tasks) t
$$;
select pgflow.start_flow('f_7', '1', run_id => '10000000-0000-4000-8000-000000000001');
create temp table done (n int generated always as identity, tasks jsonb);
insert into done (tasks) select pg_temp.work('[]');
select is((select tasks #>> '{0,step_slug}' from done where n = 1), 'a', 'without results it asks all');
insert into done (tasks) select pg_temp.work(pg_temp.results(tasks)) from done where n = 1;
select is((select tasks #>> '{0,step_slug}' from done where n = 2), 'b', 'the next step of what it has settled is claimed');

create temp table asked as
select n, pgflow.flows_to_ask(
  (select array_agg('f_' || n) from generate_series(1, 40) n), array['10000000-0000-4000-8000-000000000001']::uuid[],
  worker_id => '30000000-0000-4000-8000-000000000002'
) as flow_slugs from generate_series(1, 20) n;
select is((select cardinality(flow_slugs) from asked where n = 1), 40, 'the first call of a session asks all');
select cmp_ok((select min(cardinality(flow_slugs)) from asked), '<=', 11, 'those that follow ask few');
select ok((select bool_and('f_7' = any (flow_slugs)) from asked), 'that of the settled run is always among them');

select * from finish();
rollback;
