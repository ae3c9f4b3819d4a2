begin;
select plan(5);

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

select * from finish();
rollback;
