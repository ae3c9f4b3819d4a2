begin;
select plan(14);

create function pg_temp.queue_of(slug text) returns text
return (select f.queue_name from pgflow.flows f where f.flow_slug = slug);

-- A queue of the user's that has the name of a flow to come.
select pgmq.create('invoices');
select pgmq.send('invoices', '{"run_id": "x", "step_slug": "x", "task_index": 0}');

select pgflow.create_flow(slug) from unnest(array[
  'report', 'Report', 'REPORT', 'invoices', repeat('a', 47), repeat('a', 48), repeat('a', 49), repeat('A', 128)
]) slug;
select pgflow.add_step(slug, 'only') from unnest(array['Report', 'invoices', repeat('a', 47), repeat('A', 128)]) slug;

select is(pg_temp.queue_of('report'), 'report', 'a queue is named after its flow');
select is(pg_temp.queue_of(repeat('a', 47)), repeat('a', 47), 'up to 47 characters');
select is_empty(
  $$ select flow_slug, queue_name from pgflow.flows where length(queue_name) > 47 $$,
  'and never longer'
);
select isnt(pg_temp.queue_of(repeat('a', 48)), pg_temp.queue_of(repeat('a', 49)), 'long slugs are told apart');
select is_empty(
  $$ select lower(queue_name) from pgflow.flows group by 1 having count(*) > 1 $$,
  'slugs that differ in case have queues that differ in more'
);
select is_empty(
  $$ select f.flow_slug from pgflow.flows f where to_regclass(format('pgmq.%I', 'q_' || f.queue_name)) is null $$,
  'every flow''s queue exists under the name that the flow says'
);

select is_empty(
  $$ select f.flow_slug from pgflow.flows f join pg_class c on c.oid = to_regclass(format('pgmq.%I', 'q_' || f.queue_name))
     where 'autovacuum_vacuum_threshold=0' <> all (coalesce(c.reloptions, '{}')) $$,
  'every queue is vacuumed though little was removed from it, so that an empty one has no pages'
);

select isnt(pg_temp.queue_of('invoices'), 'invoices', 'a queue that is there already is somebody else''s');
select pgflow.start_flow(slug, '{}') from unnest(array['Report', 'invoices', repeat('a', 47), repeat('A', 128)]) slug;
select is(
  (select array_agg(c.flow_slug order by c.flow_slug collate "C") from pgflow.claim_tasks(
    array['Report', 'report', 'REPORT', 'invoices', repeat('a', 47), repeat('A', 128)], 10, gen_random_uuid()
  ) c),
  array[repeat('A', 128), 'Report', repeat('a', 47), 'invoices'],
  'tasks of such flows are claimed'
);
select is(
  (select array_agg((m.message ->> 'step_slug', m.read_ct)::text) from pgmq.q_invoices m),
  array['(x,0)'],
  'the user''s messages were not touched'
);

-- A foreign message in a flow's own queue.
select pgmq.send('report', '"hello"');
select pgmq.send('report', '["run_id", "step_slug", "task_index"]');
select pgmq.send('report', '{"run_id": "not a uuid", "step_slug": "only", "task_index": 0}');
select pgmq.send('report', '{"run_id": "00000000-0000-0000-0000-000000000000", "step_slug": "only", "task_index": "x"}');
select pgmq.send('report', '{"run_id": "00000000-0000-0000-0000-000000000000", "step_slug": "only", "task_index": 99999999999}');
select pgflow.add_step('report', 'only');
select pgflow.start_flow('report', '1');
select is(
  (select array_agg(c.input) from pgflow.claim_tasks(array['report'], 100, gen_random_uuid()) c),
  array['{"run": 1}'::jsonb],
  'what is not ours in a queue is ignored'
);
update pgmq.q_report set vt = clock_timestamp() - interval '1 second';
select is(
  (select array_agg(c.attempt) from pgflow.claim_tasks(array['report'], 100, gen_random_uuid()) c),
  array[2],
  'also when it is read again'
);

select is(pgflow.queue_name_for('report'), pgflow.queue_name_for('report'), 'a name is the same each time');
select throws_ok(
  $$ update pgflow.flows set queue_name = 'report' where flow_slug = 'Report' $$, '23505', null,
  'the table forbids a shared queue'
);

select * from finish();
rollback;
