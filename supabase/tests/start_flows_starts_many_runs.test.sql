begin;
select plan(31);
set local pgflow.now = '2020-01-01 00:00+00';

select pgflow.create_flow('f');
select pgflow.add_step('f', 'a'), pgflow.add_step('f', 'each', step_type => 'map'), pgflow.add_step('f', 'b', array['a']);

create temp table answer as
select row_number() over () as n, r.* from pgflow.start_flows(
  'f', '[[3], [1, 1], [], [2]]', owner_id => '20000000-0000-4000-8000-000000000001', metadata => '{"from": "test"}'
) r;
select results_eq(
  'select input, status, flow_slug, owner_id, metadata, idempotency_key, started_at from answer order by n',
  $$ select i::jsonb, 'started', 'f', '20000000-0000-4000-8000-000000000001'::uuid, '{"from": "test"}'::jsonb, null,
            '2020-01-01 00:00+00'::timestamptz
     from unnest(array['[3]', '[1, 1]', '[]', '[2]']) i $$,
  'a run for each input, in their order'
);
select results_eq(
  'select run_id, input from answer order by run_id', 'select run_id, input from pgflow.runs order by run_id', 'which are their rows'
);
select results_eq(
  $$ select a.n, ss.step_slug, ss.status, ss.initial_tasks from answer a join pgflow.step_states ss using (run_id)
     where a.n in (2, 3) order by 1, 2 $$,
  $$ values (2::bigint, 'a', 'started', 1), (2, 'b', 'created', null), (2, 'each', 'started', 2),
            (3, 'a', 'started', 1), (3, 'b', 'created', null), (3, 'each', 'completed', 0) $$,
  'each with its steps'
);
select is((select count(*) from pgmq.q_f), 8::bigint, 'and messages');
select results_eq(
  $$ select a.n, array_agg(concat_ws(' ', e.type, e.step_slug) order by e.seq) from answer a join pgflow.run_events e using (run_id)
     where a.n in (1, 3) group by 1 order by 1 $$,
  $$ values (1::bigint, array['run:started', 'step:started a', 'step:started each']),
            (3, array['run:started', 'step:started a', 'step:started each', 'step:completed each']) $$,
  'and its own log'
);

-- As a set
create temp table statements (target text, count bigint);
create function pg_temp.tg_note() returns trigger language plpgsql as $$
begin
  insert into pg_temp.statements values (tg_table_name, (select count(*) from new_rows));
  return null;
end
$$;
create trigger _999_note after insert on pgflow.runs referencing new table as new_rows for each statement execute function pg_temp.tg_note();
create trigger _999_note after insert on pgflow.step_states referencing new table as new_rows for each statement execute function pg_temp.tg_note();
create trigger _999_note after insert on pgflow.step_tasks referencing new table as new_rows for each statement execute function pg_temp.tg_note();
create trigger _999_note after insert on pgflow.run_events referencing new table as new_rows for each statement execute function pg_temp.tg_note();
create trigger _999_note after insert on realtime.messages referencing new table as new_rows for each statement execute function pg_temp.tg_note();
select pgflow.create_flow('always', broadcast => 'always'), pgflow.add_step('always', 'a');
select is(
  (select count(*) from pgflow.start_flows('always', (select jsonb_agg(n) from generate_series(1, 200) n))), 200::bigint, 'two hundred at once'
);
select results_eq(
  'select target, count from statements order by 1',
  $$ values ('messages', 200::bigint), ('run_events', 400), ('runs', 200), ('step_states', 200), ('step_tasks', 200) $$,
  'take one statement for each table'
);

-- Keys
create temp table keyed as
select row_number() over () as n, r.run_id, r.input, r.idempotency_key
from pgflow.start_flows('f', '[[1], [2], [1], [3], [3]]', idempotency_keys => array['k1', 'k2', 'k1', null, null]) r;
select results_eq(
  'select input, idempotency_key from keyed order by n',
  $$ values ('[1]'::jsonb, 'k1'), ('[2]', 'k2'), ('[1]', 'k1'), ('[3]', null), ('[3]', null) $$, 'keys belong to inputs by place'
);
select is((select count(distinct run_id) from keyed), 4::bigint, 'a key that comes twice starts one run, no key one each');
select is((select run_id from keyed where n = 1), (select run_id from keyed where n = 3), 'which is the answer to both');
create temp table counts as select (select count(*) from pgflow.runs) as runs, (select count(*) from pgflow.run_events) as events;
create temp table again as
select row_number() over () as n, r.run_id
from pgflow.start_flows('f', '[[2], [9], [1]]', idempotency_keys => array['k2', 'k9', 'k1']) r;
select results_eq(
  'select n, run_id in (select k.run_id from keyed k) from again order by n', $$ values (1::bigint, true), (2, false), (3, true) $$,
  'runs that keys have started are found, others start'
);
select results_eq(
  'select n, run_id from again where n <> 2 order by n',
  $$ select case k.n when 2 then 1::bigint else 3 end, k.run_id from keyed k where k.n in (1, 2) order by 1 $$, 'each under its key'
);
select is((select count(*) - c.runs from pgflow.runs, counts c group by c.runs), 1::bigint, 'one run is new');
select is((select count(*) from pgflow.run_events where run_id = (select run_id from again where n = 1)), 3::bigint, 'a found one is not started again');
select lives_ok(
  $$ select pgflow.start_flows('f', '[[8]]', idempotency_keys => array['k1'], owner_id => '20000000-0000-4000-8000-000000000002') $$,
  'another owner''s key is another one'
);
select is(
  (select r.run_id from pgflow.start_flow('f', '[9]', idempotency_key => 'k9') r), (select run_id from again where n = 2),
  'start_flow finds what start_flows has started'
);

-- What makes no sense
create temp table before as select (select count(*) from pgflow.runs) as runs, (select count(*) from pgmq.q_f) as messages;
select throws_ok(
  $$ select pgflow.start_flows('f', '[[1], [2]]', idempotency_keys => array['n1', 'k1']) $$, 'PT409', null, 'a key with another input'
);
select throws_ok(
  $$ select pgflow.start_flows('f', '[[1], [2]]', idempotency_keys => array['n2', 'n2']) $$, 'PT409', null, 'also within the batch'
);
select throws_ok(
  format('select pgflow.start_flows(%L, %L)', 'f', input), 'PT400', 'the inputs for flow "f" cannot be started', 'no array: ' || input
) from unnest(array['{}', 'null', '"[]"', '1']) input;
select throws_ok($$ select pgflow.start_flows('f', null) $$, 'PT400', null, 'no inputs');
select throws_ok(format('select pgflow.start_flows(%L, %L, %L)', 'f', '[1, 2]', keys), 'PT400', null, 'keys that are too few or many: ' || keys)
from unnest(array['{}', '{a}', '{a,b,c}']) keys;
select throws_ok($$ select pgflow.start_flows('nope', '[1]') $$, 'PT404', 'flow "nope" does not exist', 'an unknown flow');
select throws_ok($$ select pgflow.start_flows('f', '[[]]', delay => -1) $$, 'PT400', null, 'a delay below 0');
select results_eq(
  'select (select count(*) from pgflow.runs), (select count(*) from pgmq.q_f)', 'table before', 'a refused batch starts none of its runs'
);

-- Nothing
select is_empty($$ select * from pgflow.start_flows('f', '[]') $$, 'no input starts nothing');
select is_empty($$ select * from pgflow.start_flows('f', '[]', idempotency_keys => '{}') $$, 'with no keys either');

select * from finish();
rollback;
