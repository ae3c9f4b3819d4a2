begin;
select plan(17);

select is(
  (select (f.flow_slug, f.queue_name, f.opt_max_attempts, f.opt_base_delay, f.opt_timeout, f.start_role, f.broadcast)::text
   from pgflow.create_flow('defaults') f),
  '(defaults,defaults,3,5,60,service_role,watched)',
  'answers with the flow, and its defaults'
);
select is(
  (select (f.opt_max_attempts, f.opt_base_delay, f.opt_timeout, f.start_role, f.broadcast)::text
   from pgflow.create_flow(
     flow_slug => 'given', max_attempts => 1, base_delay => 0.5, timeout => 7, start_role => 'anon', broadcast => 'never'
   ) f),
  '(1,0.5,7,anon,never)',
  'takes its options by name'
);
select is((select count(*) from pgmq.list_queues() where queue_name = 'given'), 1::bigint, 'makes the queue');

-- The second call
create temp table before as select * from pgflow.flows where flow_slug = 'given';
select is(
  (select to_jsonb(f) from pgflow.create_flow('given', max_attempts => 9, start_role => 'service_role') f),
  (select to_jsonb(b) from before b),
  'a second call answers with the flow as it was defined'
);
select results_eq(
  $$ select * from pgflow.flows where flow_slug = 'given' $$, 'table before', 'and changes nothing, options included'
);
select is((select count(*) from pgmq.list_queues() where queue_name = 'given'), 1::bigint, 'nor makes a second queue');

-- Bad options
select throws_ok(
  $$ select pgflow.create_flow('bad', max_attempts => -1) $$, 'PT400', 'flow "bad" has an invalid option', 'max_attempts'
);
select throws_ok($$ select pgflow.create_flow('bad', base_delay => -1) $$, 'PT400', null, 'base_delay');
select throws_ok($$ select pgflow.create_flow('bad', base_delay => 'NaN') $$, 'PT400', null, 'base_delay that is no number');
select throws_ok($$ select pgflow.create_flow('bad', base_delay => 31536001) $$, 'PT400', null, 'base_delay of more than a year');
select throws_ok($$ select pgflow.create_flow('bad', timeout => 0) $$, 'PT400', null, 'timeout');
select throws_ok($$ select pgflow.create_flow('bad', timeout => 2147483647) $$, 'PT400', null, 'timeout of more than a year');
select throws_ok($$ select pgflow.create_flow('bad', start_role => 'postgres') $$, 'PT400', null, 'start_role');
select throws_ok($$ select pgflow.create_flow('bad', broadcast => 'public') $$, 'PT400', null, 'broadcast');
select throws_ok($$ select pgflow.create_flow('bad', start_role => null) $$, 'PT400', null, 'an option that is null');
select is_empty($$ select * from pgflow.flows where flow_slug = 'bad' $$, 'a refused flow does not exist');
select is_empty($$ select * from pgmq.list_queues() where queue_name = 'bad' $$, 'nor does its queue');

select * from finish();
rollback;
