begin;
select plan(29);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
-- The messages that tasks have, and for how many seconds each is hidden, to ten.
create function pg_temp.messages(flow text) returns table (n int, step_slug text, task_index int, hidden int) language plpgsql as $$
begin
  return query execute format('
    select right(t.run_id::text, 3)::int, t.step_slug, t.task_index,
           greatest(0, 10 * round(extract(epoch from q.vt - clock_timestamp()) / 10))::int
    from pgflow.step_tasks t join pgmq.%I q on q.msg_id = t.message_id
    where q.message = jsonb_build_object(
      ''flow_slug'', t.flow_slug, ''run_id'', t.run_id, ''step_slug'', t.step_slug, ''task_index'', t.task_index
    )
    order by t.run_id, t.step_slug, t.task_index', 'q_' || flow);
end
$$;

select pgflow.create_flow('f', timeout => 100, base_delay => 500), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'later', start_delay => 1000), pgflow.add_step('f', 'b', array['a']);
select pgflow.create_flow('g'), pgflow.add_step('g', 'a', step_type => 'map');
select pgflow.start_flow('f', '1', run_id => pg_temp.run(n)) from generate_series(1, 5) n;
select pgflow.start_flow('g', '[1, 2]', run_id => pg_temp.run(6));
select results_eq('select * from pgflow.repair()', $$ values (0::bigint, 0::bigint) $$, 'nothing is lost');

-- A worker that is alive, one that is not listed, a failure that waits for its next attempt, what is closed
select pgflow.register_worker('30000000-0000-4000-8000-000000000001', 'alive', '{f}');
create function pg_temp.claim(n int, worker uuid) returns void language sql as $$
  update pgmq.q_f set vt = clock_timestamp() + case when message ->> 'run_id' = pg_temp.run(n)::text then '0 s' else interval '1 h' end
  where message ->> 'step_slug' = 'a';
  select pgflow.claim_tasks('{f}', 1, worker)
$$;
select pg_temp.claim(1, '30000000-0000-4000-8000-000000000001'), pg_temp.claim(2, '30000000-0000-4000-8000-000000000002');
select pgflow.fail_task(pg_temp.run(3), 'a', 0, 'again'), pgflow.cancel_run(pg_temp.run(4));
select is((select count(*) from pgflow.step_tasks where status = 'started'), 2::bigint, 'two are claimed');
select is((select messages from pgflow.repair()), 0::bigint, 'still nothing is lost');

select pgmq.purge_queue('f');
select results_eq('select * from pgflow.repair()', $$ values (0::bigint, 8::bigint) $$, 'each open task gets its message back');
select results_eq(
  $$ select * from pg_temp.messages('f') $$,
  $$ values (1, 'a', 0, 60), (1, 'later', 0, 1000), (2, 'a', 0, 100), (2, 'later', 0, 1000), (3, 'a', 0, 1000), (3, 'later', 0, 1000),
            (5, 'a', 0, 0), (5, 'later', 0, 1000) $$,
  'hidden for as long as the lost one: of a living worker, of its timeout, until the next attempt, until it starts'
);
select is((select count(*) from pgmq.q_f), 8::bigint, 'what is closed gets none');
select is((select messages from pgflow.repair()), 0::bigint, 'a second time there is nothing to do');
select is(
  (select active from pgflow.heartbeat('30000000-0000-4000-8000-000000000001', (
     select jsonb_agg(jsonb_build_object('run_id', run_id, 'step_slug', step_slug, 'task_index', task_index, 'attempt', attempts_count))
     from pgflow.step_tasks where run_id = pg_temp.run(1) and step_slug = 'a'
   ), 500)), true, 'a living worker keeps its task'
);
select is((select hidden from pg_temp.messages('f') m where m.n = 1 and m.step_slug = 'a'), 500, 'and extends the new message');
delete from pgmq.q_f where message ->> 'run_id' = pg_temp.run(5)::text and message ->> 'step_slug' = 'a';
select is((select messages from pgflow.repair()), 1::bigint, 'one message that was deleted');

-- A queue that is gone
select pgmq.drop_queue('g');
select results_eq('select * from pgflow.repair()', $$ values (1::bigint, 0::bigint) $$, 'creates the queue, with its messages');
select results_eq($$ select task_index, hidden from pg_temp.messages('g') $$, $$ values (0, 0), (1, 0) $$, 'each open task has one');
select cmp_ok((select min(msg_id) from pgmq.q_g), '>', 1000000::bigint, 'whose number no other message had');
select pgmq.drop_queue('g');
select is((select count(*) from pgflow.claim_tasks('{f,g}', 10, null)), 3::bigint, 'a claim creates it, too, and claims of all flows');
select pgmq.drop_queue('g');
select is((select count(*) from pgflow.complete_task(pg_temp.run(6), 'a', 0, '1')), 1::bigint, 'a settlement needs no message');
select is((select count(*) from pgflow.fail_task(pg_temp.run(6), 'a', 1, 'no')), 1::bigint, 'a retry creates it');
select is((select count(*) from pg_temp.messages('g')), 1::bigint, 'with the message of the next attempt');
select pgmq.drop_queue('g');
select lives_ok($$ select pgflow.cancel_run(pg_temp.run(6)) $$, 'a cancel needs none');
select pgmq.drop_queue('f');
select lives_ok($$ select pgflow.start_flow('f', '2', run_id => pg_temp.run(7)) $$, 'a start creates it');
select is((select count(*) from pgmq.q_f), 10::bigint, 'and gives all others their messages back');
drop table pgmq.a_f;
select is((select queues from pgflow.repair()), 2::bigint, 'an archive is created again, too');

-- Many, beside few: a large map, small runs before and after it, and many that are over
select pgflow.cancel_run(run_id) from pgflow.runs where status = 'started';
select pgflow.start_flow('g', to_jsonb(array(select generate_series(1, 6000))), run_id => pg_temp.run(20));
select pgflow.start_flow('f', '1', run_id => pg_temp.run(n)) from unnest(array[19, 21]) n;
insert into pgflow.runs (run_id, flow_slug, input, status, started_at, cancelled_at)
select ('20000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'f', '1', 'cancelled', now(), now() from generate_series(1, 12000) n;
select pgflow.start_flow('f', '1', run_id => '30000000-0000-4000-8000-000000000001');
create temp table lost as select 6000 + 3 * 2 as messages;
select pgmq.purge_queue(q) from unnest(array['f', 'g']) q;
create temp table repaired as select r.messages from pgflow.repair(100) r;
select ok((select r.messages between 100 and 5000 from repaired r), 'a call with a quantity ends when it has sent as many');
select is((select r.messages from pgflow.repair() r), messages - (select r.messages from repaired r), 'and another goes on') from lost;
select is((select r.messages from pgflow.repair() r), 0::bigint, 'until nothing is lost');
select is((select count(*) from pg_temp.messages('g')), 6000::bigint, 'each task of the map has its message');
select is((select count(*) from pg_temp.messages('f')), 6::bigint, 'and each of the other runs');
select pgmq.purge_queue(q) from unnest(array['f', 'g']) q;
select is((select r.messages from pgflow.repair() r), messages::bigint, 'one call sends all of them, too') from lost;
select is((select count(*) from pg_temp.messages('f')), 6::bigint, 'to each of the queues');

-- Messages that are none of ours
select pgmq.send('f', message) from unnest(array['{}', '[]', 'null', '{"run_id": "x"}']::jsonb[]) message;
select pgflow.claim_tasks('{f}', 100, null);
select is((select count(*) from pgmq.a_f where message -> 'flow_slug' is null), 4::bigint, 'are archived when they are read');

select * from finish();
rollback;
