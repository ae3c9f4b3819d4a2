begin;
select plan(31);

-- Starts a run of a priority; its number is its input.
create function pg_temp.start(n int, priority text, flow text default 'f', delay int default 0) returns void language plpgsql as $$
begin
  perform pgflow.start_flow(
    flow, to_jsonb(n), run_id => format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid, delay => start.delay,
    priority => start.priority
  );
end
$$;
-- Lets the message of a run be older.
create function pg_temp.age(n int, by interval, queue text default 'f') returns void language plpgsql as $$
begin
  execute format($q$
    update pgmq.%I set vt = vt - $1, enqueued_at = enqueued_at - $1 where right(message ->> 'run_id', 3)::int = $2
  $q$, 'q_' || queue) using by, n;
end
$$;
create temp table claimed (at int generated always as identity, n int, task jsonb);
-- Claims tasks one by one; answers with the numbers of their runs, in order.
create function pg_temp.claim(quantity int, flows text[] default '{f}', at_once int default 1) returns int[] language plpgsql as $$
declare
  claimed int[] := '{}';
  task record;
begin
  for i in 1..quantity loop
    for task in select * from pgflow.claim_tasks(flows, at_once, '30000000-0000-4000-8000-000000000001') loop
      claimed := claimed || right(task.run_id::text, 3)::int;
      insert into claimed (n, task) values (
        right(task.run_id::text, 3)::int,
        jsonb_build_object('run_id', task.run_id, 'step_slug', task.step_slug, 'task_index', task.task_index, 'attempt', task.attempt)
      );
    end loop;
  end loop;
  return claimed;
end
$$;
create function pg_temp.task(n int) returns jsonb language sql as $$
  select jsonb_build_array(c.task) from claimed c where c.n = task.n order by c.at desc limit 1
$$;
select pgflow.create_flow(flow, max_attempts => 3, base_delay => 100), pgflow.add_step(flow, 'a') from unnest(array['f', 'g']) flow;

-- The order of one queue
select pg_temp.start(1, 'low'), pg_temp.start(2, 'normal'), pg_temp.start(3, 'high'), pg_temp.start(4, 'normal'), pg_temp.start(5, 'low'),
       pg_temp.start(6, 'high');
select is(pg_temp.claim(7), array[3, 6, 2, 4, 1, 5], 'high before normal, before low; those of a priority in the order of their starts');
select is((select count(*) from pgmq.q_f where vt > clock_timestamp() + interval '20 s'), 6::bigint, 'each has its lease');
select pgmq.purge_queue('f');
select pg_temp.start(n, (array['low', 'normal', 'high'])[n - 10]) from generate_series(11, 13) n;
select is(pg_temp.claim(1, at_once => 2), array[12, 13], 'one claim takes the first, too');
select is(pg_temp.claim(1, at_once => 2), array[11], 'and low ones if nothing else is left');

-- An hour
select pg_temp.start(21, 'normal'), pg_temp.age(21, '61 min'), pg_temp.start(22, 'normal'), pg_temp.age(22, '59 min'), pg_temp.start(23, 'high');
select is(pg_temp.claim(3), array[21, 23, 22], 'a high one goes ahead of normal ones that were queued up to an hour before');
select pg_temp.start(24, 'low'), pg_temp.age(24, '59 min'), pg_temp.start(25, 'low'), pg_temp.age(25, '70 min'),
       pg_temp.start(26, 'normal'), pg_temp.start(27, 'normal'), pg_temp.age(27, '15 min');
select is(pg_temp.claim(1), array[27], 'low ones are behind normal ones');
select is(
  pg_temp.claim(3), array[25, 26, 24], 'unless these were queued more than an hour after them'
);
-- A flood of normal ones does not keep low ones from their turn.
select pg_temp.start(n, 'normal') from generate_series(30, 49) n;
select pg_temp.start(50, 'low'), pg_temp.age(50, '2 h');
select ok(50 = any (pg_temp.claim(3)), 'a low one that has waited for an hour has its turn among a flood');
select pgmq.purge_queue('f');

-- Delays, retries, tasks that are given back
select pg_temp.start(51, 'high', delay => 300), pg_temp.start(52, 'low', delay => 300);
select is(pg_temp.claim(1, at_once => 9), '{}', 'a delay holds for all');
select ok((select bool_and(vt between clock_timestamp() + interval '290 s' and clock_timestamp() + interval '300 s') from pgmq.q_f), 'as long as it is');
select pg_temp.age(51, '301 s'), pg_temp.age(52, '302 s'), pg_temp.start(53, 'normal'), pg_temp.age(53, '3 s');
select is(pg_temp.claim(3), array[53, 52, 51], 'then they have their turn from when they are due');
select pg_temp.start(54, 'high'), pg_temp.start(55, 'low');
select is(pg_temp.claim(2), array[54, 55], 'a high and a low one are claimed');
select is(pgflow.hand_back(pg_temp.task(54) || pg_temp.task(55)), 2, 'and given back');
select pg_temp.start(56, 'normal'), pg_temp.start(57, 'low'), pg_temp.start(58, 'high');
select is(pg_temp.claim(5), array[54, 58, 56, 55, 57], 'they are where they were');
select pgflow.settle_tasks(jsonb_set(pg_temp.task(n), '{0,error}', '"no"')) from unnest(array[54, 55]) n;
select is(pg_temp.claim(1, at_once => 9), '{}', 'a retry waits');
select ok(
  (select bool_and(vt between clock_timestamp() + interval '90 s' and clock_timestamp() + interval '210 s') from pgmq.q_f
   where right(message ->> 'run_id', 3) in ('054', '055')), 'for its delay'
);
select pg_temp.age(54, '201 s'), pg_temp.age(55, '202 s'), pg_temp.start(59, 'normal');
select is(pg_temp.claim(3), array[55, 54, 59], 'then it has its turn from when it is due');
update pgmq.q_f set vt = clock_timestamp() - interval '1 s' where right(message ->> 'run_id', 3) = '057';
select pg_temp.start(60, 'normal');
select is(pg_temp.claim(2), array[57, 60], 'so has a task whose lease is over');
select pgmq.purge_queue('f');

-- Several flows
select pg_temp.start(71, 'low'), pg_temp.start(72, 'low'), pg_temp.start(73, 'high', 'g'), pg_temp.start(74, 'normal', 'g'), pg_temp.start(75, 'low', 'g');
select is(pg_temp.claim(2, '{f,g}'), array[73, 74], 'low ones of a flow come after all others of other flows');
select is(cardinality(pg_temp.claim(1, '{f,g}', at_once => 9)), 3, 'then those of each flow');
select pg_temp.start(76, 'low'), pg_temp.age(76, '61 min');
select pg_temp.start(n, 'normal', 'g') from generate_series(77, 96) n;
select ok(76 = any (pg_temp.claim(3, '{f,g}', at_once => 4)), 'one that has waited for an hour has a share beside other flows');
select pgmq.purge_queue('f'), pgmq.purge_queue('g');
select pg_temp.start(n, 'high', 'g'), pg_temp.start(n + 1, 'low', 'g') from generate_series(97, 99, 2) n;
select is((select count(*) from pgmq.read('g', 30, 100)), 4::bigint, 'pgmq itself reads all of them');
select pgmq.purge_queue('g');
delete from pgflow.runs;

-- All tasks of a run have its priority: those of later steps and of maps, and those whose messages were lost.
select pgflow.create_flow('chain'), pgflow.add_step('chain', 'a'), pgflow.add_step('chain', 'b', array['a']),
       pgflow.add_step('chain', 'c', array['b'], step_type => 'map');
create function pg_temp.waits(vt timestamptz) returns text language sql as $$
  select case when vt < '1970-01-01' then 'behind' when vt < clock_timestamp() - interval '59 min' then 'ahead' when vt <= clock_timestamp() then 'between' end
$$;
create function pg_temp.queued(step_slug text) returns setof text language sql as $$
  select format('%s %s %s', right(m.message ->> 'run_id', 3)::int, m.message ->> 'priority', pg_temp.waits(m.vt)) from pgmq.q_chain m
  where m.message ->> 'step_slug' = queued.step_slug order by 1
$$;
create function pg_temp.complete(output jsonb) returns void language sql as $$
  select pgflow.settle_tasks((
    select jsonb_agg(jsonb_build_object('run_id', c.run_id, 'step_slug', c.step_slug, 'task_index', c.task_index, 'attempt', c.attempt, 'output', output))
    from pgflow.claim_tasks('{chain}', 100, null) c
  ))
$$;
select pg_temp.start(101, 'high', 'chain'), pg_temp.start(102, 'normal', 'chain'), pg_temp.start(103, 'low', 'chain');
create temp table expected as select unnest(array['101 high ahead', '102  between', '103 low behind']) as queued;
select results_eq($$ select pg_temp.queued('a') $$, 'table expected', 'the first step');
select pg_temp.complete('0');
select results_eq($$ select pg_temp.queued('b') $$, 'table expected', 'the next step');
select pg_temp.complete('[1, 2]');
select results_eq(
  $$ select pg_temp.queued('c') $$, 'select queued from expected cross join generate_series(1, 2) order by 1', 'the items of a map'
);
select pgmq.purge_queue('chain');
select is((select messages from pgflow.repair()), 6::bigint, 'messages that were lost are sent again');
select results_eq(
  $$ select pg_temp.queued('c') $$, 'select queued from expected cross join generate_series(1, 2) order by 1', 'as they were'
);
select is((select count(*) from pgflow.repair() r where r.messages > 0), 0::bigint, 'once');
select pgflow.retry_run(run_id) from (select run_id, pgflow.cancel_run(run_id) from pgflow.runs where flow_slug = 'chain') r;
select results_eq(
  $$ select pg_temp.queued('c') $$, 'select queued from expected cross join generate_series(1, 2) order by 1', 'a run that is tried again keeps its priority'
);

-- Messages of others that say they are very old are in nobody's way.
insert into pgmq.q_g (vt, message) values ('-infinity', '{}');
select pg_temp.start(110, 'low', 'g'), pg_temp.age(110, '2 h', 'g'), pg_temp.start(111, 'normal', 'g');
select is(pg_temp.claim(4, '{g}'), array[111, 110], 'nor in that of low ones');
select is((select count(*) from pgmq.a_g), 1::bigint, 'they are archived');

select * from finish();
rollback;
