begin;
select plan(8);

create function pg_temp.claim(flow_slugs text[]) returns setof text language sql as $$
  select c.flow_slug from pgflow.claim_tasks(flow_slugs, 2, '30000000-0000-4000-8000-000000000001') c order by 1
$$;
select pgflow.create_flow(flow), pgflow.add_step(flow, 'a') from unnest(array['f', 'g']) flow;
select pgflow.start_flows(flow, (select jsonb_agg(n) from generate_series(1, 2000) n), delay => 3600) from unnest(array['f', 'g']) flow;
select pgflow.start_flow(flow, '"due"') from unnest(array['f', 'g']) flow;

-- How many rows of the queues this transaction has read, from tables and indexes.
create function pg_temp.rows_read() returns bigint language sql as $$
  select sum(pg_stat_get_xact_tuples_returned(i.relation))::bigint
  from (
    select unnest(array[indrelid, indexrelid]) from pg_index where indrelid in ('pgmq.q_f'::regclass, 'pgmq.q_g'::regclass)
  ) as i (relation)
$$;

create temp table counted as select pg_temp.rows_read() as before;
select results_eq($$ select pg_temp.claim(array['f', 'g']) $$, array['f', 'g'], 'beside thousands that are not due, what is due is claimed');
select cmp_ok(pg_temp.rows_read() - before, '<', 50::bigint, 'without reading those') from counted;
select is_empty($$ select pg_temp.claim(array['f', 'g']) $$, 'then nothing is due');
select cmp_ok(pg_temp.rows_read() - before, '<', 100::bigint, 'which is found without reading them either') from counted;

-- What was given back, or is claimed again, has its turn among those that became due at the same time.
select pgflow.start_flow('f', to_jsonb(n), run_id => format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid) from generate_series(1, 3) n;
create temp table claimed as select c.* from pgflow.claim_tasks(array['f'], 1, gen_random_uuid()) c;
select is((select input from claimed), '{"run": 1}'::jsonb, 'the first that became due is the first that is claimed');
select pgflow.hand_back(jsonb_agg(jsonb_build_object(
  'run_id', c.run_id, 'step_slug', c.step_slug, 'task_index', c.task_index, 'attempt', c.attempt
))) from claimed c;
select is(
  (select input from pgflow.claim_tasks(array['f'], 1, gen_random_uuid())), '{"run": 1}'::jsonb, 'after it was given back, too'
);
select is((select input from pgflow.claim_tasks(array['f'], 1, gen_random_uuid())), '{"run": 2}'::jsonb, 'then the next');

-- Functions that are due, of which nobody has called any yet.
insert into pgflow.alarms (due_at, kind, run_id, step_slug) select pgflow.now(), 'sql', gen_random_uuid(), 'a' from generate_series(1, 2000);
analyze pgflow.alarms;
create function pg_temp.alarms_read() returns bigint language sql as $$
  select sum(pg_stat_get_xact_tuples_returned(i.relation))::bigint
  from (select unnest(array[indrelid, indexrelid]) from pg_index where indrelid = 'pgflow.alarms'::regclass) as i (relation)
$$;
create temp table looked as select pg_temp.alarms_read() as before;
select pgflow.settle_and_claim('[]', array['f', 'g'], 2, gen_random_uuid()), pgflow.next_due_in(), pgflow.next_call_in();
select cmp_ok(pg_temp.alarms_read() - before, '<', 50::bigint, 'what a worker asks passes over no functions that are due') from looked;

select * from finish();
rollback;
