begin;
select plan(10);

-- The blocks of temporary files that a settlement writes: rows that exceed work_mem go there, at each statement that they pass.
create function pg_temp.blocks_written(query text) returns bigint language plpgsql as $$
declare
  plan jsonb;
begin
  execute format('explain (analyze, buffers, format json) %s', query) into plan;
  return (plan #>> '{0,Plan,Temp Written Blocks}')::bigint;
end
$$;
create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
-- Of 800 KB
create function pg_temp.large(seed int) returns jsonb language sql as $$
  select to_jsonb(string_agg(md5((seed * n)::text), '')) from generate_series(1, 25000) n
$$;
create function pg_temp.output(n int, slug text) returns jsonb language sql as $$
  select output from pgflow.step_states where run_id = pg_temp.run(n) and step_slug = slug
$$;

set local work_mem = '64kB';
set local pgflow.now = '2030-01-01T00:00:00Z';
select pgflow.create_flow('f'), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b', array['a']);
select pgflow.create_flow('m'), pgflow.add_step('m', 'each', step_type => 'map');
select pgflow.create_flow('w'), pgflow.add_step('w', 'asked', step_type => 'wait'), pgflow.add_step('w', 'b', array['asked']),
       pgflow.add_step('w', 'early', array['b'], step_type => 'wait'), pgflow.add_step('w', 'end', array['early']),
       pgflow.add_step(
         'w', 'late', step_type => 'wait', timeout => 60, when_timed_out => 'complete', timed_out_output => pg_temp.large(7)
       ), pgflow.add_step('w', 'c', array['late']);
select pgflow.start_flow('f', '1', run_id => pg_temp.run(1)), pgflow.start_flow('m', '[1, 2]', run_id => pg_temp.run(2)),
       pgflow.start_flow('w', '1', run_id => pg_temp.run(3));

select cmp_ok(
  pg_temp.blocks_written(format('select * from pgflow.settle_tasks(%L)', jsonb_build_array(
    jsonb_build_object('run_id', pg_temp.run(1), 'step_slug', 'a', 'task_index', 0, 'output', pg_temp.large(1))
  ))), '<=', 200::bigint, 'of an output of 98 blocks only what triggers look at is written to a file'
);
select is(pg_temp.output(1, 'a'), pg_temp.large(1), 'and is stored');
select cmp_ok(
  pg_temp.blocks_written(format('select * from pgflow.settle_tasks(%L)', (
    select jsonb_agg(jsonb_build_object(
      'run_id', pg_temp.run(2), 'step_slug', 'each', 'task_index', n, 'output', pg_temp.large(n + 2)
    )) from generate_series(0, 1) n
  ))), '<=', 600::bigint, 'so it is of two items of a map, and of their step and run, which have the outputs of both'
);
select is(
  (select output from pgflow.runs where run_id = pg_temp.run(2)),
  jsonb_build_object('each', jsonb_build_array(pg_temp.large(2), pg_temp.large(3))), 'and are stored in their order'
);
select cmp_ok(
  pg_temp.blocks_written(format('select pgflow.complete_wait(%L, %L, %L)', pg_temp.run(3), 'asked', pg_temp.large(4))),
  '<=', 200::bigint, 'so it is of the value of a wait'
);
select is(pg_temp.output(3, 'asked'), pg_temp.large(4), 'and is stored');
select pgflow.complete_wait(pg_temp.run(3), 'early', pg_temp.large(5));
select cmp_ok(
  pg_temp.blocks_written(format('select pgflow.complete_task(%L, %L, 0, %L)', pg_temp.run(3), 'b', '6')),
  '<=', 200::bigint, 'of one that was given before the wait began'
);
select is(pg_temp.output(3, 'early'), pg_temp.large(5), 'and is stored');
set local pgflow.now = '2030-01-01T00:01:00Z';
select cmp_ok(pg_temp.blocks_written('select * from pgflow.tick()'), '<=', 200::bigint, 'and of the one for its timeout');
select is(pg_temp.output(3, 'late'), pg_temp.large(7), 'and is stored');

select * from finish();
rollback;
