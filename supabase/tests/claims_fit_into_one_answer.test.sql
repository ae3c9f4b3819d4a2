begin;
select plan(9);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.claim(flow text, inline_limit int default null) returns bigint language sql as $$
  select jsonb_array_length(tasks) from pgflow.settle_and_claim('[]', array[flow], 100, gen_random_uuid(), inline_limit => inline_limit)
$$;
-- How many of the open tasks' messages are within so many bytes, and how many are visible again.
create function pg_temp.within(flow text, bytes bigint, inline_limit int) returns int[] language plpgsql as $$
declare
  messages pgflow.message[] := pgflow.read_messages(array[flow], 100, 60);
  within int := cardinality(pgflow.messages_within(messages, bytes, inline_limit));
  visible int;
begin
  execute format('select count(*) from pgmq.q_%s where vt <= clock_timestamp()', flow) into visible;
  execute format('update pgmq.q_%s set vt = clock_timestamp()', flow);
  return array[within, visible];
end
$$;

select pgflow.create_flow('m'), pgflow.add_step('m', 'each', step_type => 'map');
select pgflow.create_flow('f'), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b', array['a']);
select pgflow.start_flow('m', '[1, 2, 3]', run_id => pg_temp.run(1));
select pgflow.start_flow('f', to_jsonb(md5(n::text)), run_id => pg_temp.run(n)) from generate_series(11, 14) n;
select is(pg_temp.within('m', 1000, 100), array[3, 0], 'small inputs are claimed together');
select is(pg_temp.within('m', 0, 100), array[1, 2], 'at least one is claimed; the others are visible to the next claim');
select is(pg_temp.within('f', 100, null), array[2, 2], 'inputs of runs count');
select is(pg_temp.within('f', 100, 10), array[4, 0], 'but references need no room');
select pgflow.complete_task(run_id, 'a', 0, to_jsonb(repeat('x', 100))) from pgflow.runs where flow_slug = 'f';
select is(pg_temp.within('f', 200, null), array[1, 3], 'outputs of deps count');

-- Three items of 100 MB, stored in a megabyte each
update pgflow.step_tasks set input = (select to_jsonb(repeat(repeat('x', 1000), 100000))) where flow_slug = 'm';
select is(pg_temp.claim('m', 65536), 1::bigint, 'a claim of items that exceed the largest JSON value together claims one');
-- To read the others at their size takes seconds, and shows no more.
update pgflow.step_tasks set input = '1' where flow_slug = 'm' and status = 'queued';
select is(pg_temp.claim('m', 65536), 2::bigint, 'and the next claims the others');
select is(pg_temp.claim('m', 65536), 0::bigint, 'until all are claimed');
select is((select max(attempts_count) from pgflow.step_tasks), 1, 'each once');

select * from finish();
rollback;
