begin;
select plan(31);

select pgflow.create_flow(slug), pgflow.add_step(slug, 'a') from unnest(array['f', 'g']) slug;

-- An idempotency key
create temp table first as select * from pgflow.start_flow('f', '{"x": 1}', idempotency_key => 'k');
select is((select idempotency_key from first), 'k', 'the run remembers its key');
select results_eq(
  $$ select * from pgflow.start_flow('f', '{"x": 1.0}', idempotency_key => 'k', metadata => '"other"') $$, 'table first',
  'the same key gives the run that exists, as it was started'
);
select is((select count(*) from pgflow.runs), 1::bigint, 'and makes no run');
select is((select count(*) from pgflow.step_tasks), 1::bigint, 'nor tasks');
select is((select count(*) from pgmq.q_f), 1::bigint, 'nor messages');
select is((select count(*) from pgflow.run_events), 2::bigint, 'nor events');
select throws_ok(
  $$ select pgflow.start_flow('f', '{"x": 2}', idempotency_key => 'k') $$,
  'PT409', 'the idempotency key "k" was used with another input for flow "f"', 'with another input it is an error'
);
select throws_ok($$ select pgflow.start_flow('f', 'null', idempotency_key => 'k') $$, 'PT409', null, 'null is another input');
select throws_ok(
  format($$ select pgflow.start_flow('f', '1', idempotency_key => %L) $$, key), 'PT400',
  'an idempotency key for flow "f" is empty or too long', 'not a key: ' || left(key, 5)
) from unnest(array['', repeat('ä', 256)]) key;
select is(
  (select idempotency_key from pgflow.start_flow('f', '"long"', idempotency_key => repeat('ä', 255))), repeat('ä', 255),
  'a key has 255 characters at most'
);

select isnt(
  (select run_id from pgflow.start_flow('g', '{"x": 1}', idempotency_key => 'k')), (select run_id from first),
  'another flow''s key is another key'
);
create temp table owned as
select * from pgflow.start_flow(
  'f', '{"x": 2}', idempotency_key => 'k', owner_id => '20000000-0000-4000-8000-000000000001'
);
select isnt((select run_id from owned), (select run_id from first), 'another owner''s key is another key');
select isnt(
  (select run_id from pgflow.start_flow(
    'f', '{"x": 2}', idempotency_key => 'k', owner_id => '20000000-0000-4000-8000-000000000002'
  )),
  (select run_id from owned),
  'for each owner'
);
select is(
  (select run_id from pgflow.start_flow(
    'f', '{"x": 2}', idempotency_key => 'k', owner_id => '20000000-0000-4000-8000-000000000001'
  )),
  (select run_id from owned),
  'and the same for the same owner'
);

-- No key
select isnt(
  (select run_id from pgflow.start_flow('f', '{}')), (select run_id from pgflow.start_flow('f', '{}')),
  'without a key each start makes a run'
);
select is(
  (select count(distinct run_id) from pgflow.runs where idempotency_key is null and flow_slug = 'f'), 2::bigint, 'both are there'
);

-- A key after the run has ended
select pgflow.complete_task((select run_id from first), 'a', 0, '1');
select is(
  (select (r.run_id = f.run_id, r.status, r.output)::text
   from pgflow.start_flow('f', '{"x": 1}', idempotency_key => 'k') r, first f),
  '(t,completed,"{""a"": 1}")',
  'a run that has ended is still the run of its key'
);

-- A key that is known, of a run that is somebody else's by now
select pgflow.start_flow('f', '"theirs"', idempotency_key => 'moved', owner_id => '20000000-0000-4000-8000-000000000003');
update pgflow.runs set owner_id = '20000000-0000-4000-8000-000000000004' where input = '"theirs"';
select throws_ok(
  $$ select pgflow.start_flow('f', '"theirs"', idempotency_key => 'moved', owner_id => '20000000-0000-4000-8000-000000000003') $$,
  'PT409', 'the idempotency key "moved" is taken', 'does not find it'
);

-- A key goes with its run.
delete from pgflow.runs where input = '"theirs"';
select isnt_empty(
  $$ select pgflow.start_flow('f', '"new"', idempotency_key => 'moved', owner_id => '20000000-0000-4000-8000-000000000003') $$,
  'and starts another one when it is deleted'
);

-- A run_id
create function pg_temp.run() returns uuid return uuid '10000000-0000-4000-8000-000000000001';
select is((select run_id from pgflow.start_flow('f', '1', run_id => pg_temp.run())), pg_temp.run(), 'run_id names the run');
select is(
  (select run_id from pgflow.start_flow('f', '1', run_id => pg_temp.run())), pg_temp.run(),
  'the same run_id gives the run that exists'
);
select is((select count(*) from pgflow.runs where input = '1'), 1::bigint, 'and makes no run');
select throws_ok(
  $$ select pgflow.start_flow('f', '2', run_id => pg_temp.run()) $$, 'PT409', null, 'with another input it is an error'
);
select throws_ok(
  $$ select pgflow.start_flow('g', '1', run_id => pg_temp.run()) $$,
  'PT409', 'run_id 10000000-0000-4000-8000-000000000001 is taken', 'and for another flow'
);
select throws_ok(
  $$ select pgflow.start_flow('f', '1', run_id => pg_temp.run(), owner_id => '20000000-0000-4000-8000-000000000001') $$,
  'PT409', 'run_id 10000000-0000-4000-8000-000000000001 is taken', 'and for another owner'
);

select throws_ok(
  $$ select pgflow.start_flow('f', '1', run_id => pg_temp.run(), idempotency_key => 'later') $$,
  'PT409', 'run_id 10000000-0000-4000-8000-000000000001 is taken', 'and with a key that the run does not have'
);
select is_empty($$ select from pgflow.run_keys where key = 'later' $$, 'which does not get it');
select pgflow.start_flow('f', '"both"', run_id => '10000000-0000-4000-8000-000000000002', idempotency_key => 'both');
select is(
  (select run_id from pgflow.start_flow('f', '"both"', idempotency_key => 'both')),
  '10000000-0000-4000-8000-000000000002'::uuid,
  'a run that has both is found by its key'
);

-- A run with the id is there when the start takes its key, and another transaction deletes it, which does not see the key
create function pg_temp.tg_delete() returns trigger language plpgsql as $$
begin
  delete from pgflow.runs where input = '"gone"';
  if found then
    insert into pgflow.run_keys (run_id, alias, key) values ('10000000-0000-4000-8000-000000000003', 'f', 'gone');
  end if;
  return null;
end
$$;
create trigger zz_delete after insert on pgflow.step_states for each statement execute function pg_temp.tg_delete();
alter table pgflow.step_states disable trigger zz_delete;
select pgflow.start_flow('f', '"gone"', run_id => '10000000-0000-4000-8000-000000000003');
alter table pgflow.step_states enable trigger zz_delete;
select is(
  (select input from pgflow.start_flow('f', '"new"', run_id => '10000000-0000-4000-8000-000000000003', idempotency_key => 'gone')),
  '"new"', 'a run that is deleted meanwhile is started after all'
);
select is(
  (select run_id from pgflow.run_keys where key = 'gone'), '10000000-0000-4000-8000-000000000003'::uuid, 'and has the key'
);

select * from finish();
rollback;
