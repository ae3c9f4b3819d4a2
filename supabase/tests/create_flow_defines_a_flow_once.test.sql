begin;
select plan(22);

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

select is(
  (select (f.opt_max_attempts, f.opt_timeout, f.start_role, f.priority, f.opt_deadline)::text
   from pgflow.create_flow('others', max_attempts => null, options => '{"timeout": 8, "priority": "low", "deadline": 9}') f),
  '(3,8,service_role,low,9)',
  'and what has no argument as one of the options; null is the default'
);

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
  $$ select pgflow.create_flow('bad', max_attempts => -1) $$, 'PT400', 'the definition of flow "bad" is invalid: max_attempts is -1, not a whole number from 0', 'max_attempts'
);
select throws_ok($$ select pgflow.create_flow('bad', base_delay => -1) $$, 'PT400', null, 'base_delay');
select throws_ok($$ select pgflow.create_flow('bad', base_delay => 'NaN') $$, 'PT400', null, 'base_delay that is no number');
select throws_ok($$ select pgflow.create_flow('bad', base_delay => 31536001) $$, 'PT400', null, 'base_delay of more than a year');
select throws_ok($$ select pgflow.create_flow('bad', timeout => 0) $$, 'PT400', null, 'timeout');
select throws_ok($$ select pgflow.create_flow('bad', timeout => 2147483647) $$, 'PT400', null, 'timeout of more than a year');
select throws_ok($$ select pgflow.create_flow('bad', start_role => 'postgres') $$, 'PT400', null, 'start_role');
select throws_ok($$ select pgflow.create_flow('bad', broadcast => 'public') $$, 'PT400', null, 'broadcast');
select throws_ok(
  $$ select pgflow.create_flow('bad', options => '{"priority": "urgent"}') $$, 'PT400',
  'the definition of flow "bad" is invalid: priority is "urgent", not one of high, normal, low', 'an option without an argument'
);
select throws_ok(
  $$ select pgflow.create_flow('bad', timeout => 1, options => '{"timeout": 2}') $$, 'PT400', 'the options are invalid: "timeout" is an argument, too', 'both'
);
select throws_ok(
  format($$ select pgflow.create_flow('bad', options => '{"%s": null}') $$, key), 'PT400', format('the options are invalid: "%s" is not one of them', key), key
) from unnest(array['flow_slug', 'steps']) key;
select throws_ok($$ select pgflow.create_flow('bad', options => '[]') $$, 'PT400', 'the options are invalid: they are [], not an object', 'an array');
select is_empty($$ select * from pgflow.flows where flow_slug = 'bad' $$, 'a refused flow does not exist');
select is_empty($$ select * from pgmq.list_queues() where queue_name = 'bad' $$, 'nor does its queue');

select * from finish();
rollback;
