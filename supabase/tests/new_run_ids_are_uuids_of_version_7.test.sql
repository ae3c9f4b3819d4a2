begin;
select plan(11);

select is(cardinality(pgflow.new_run_ids(3)), 3, 'as many as wanted');
select is(cardinality(pgflow.new_run_ids()), 1, 'one by default');
select is(pgflow.new_run_ids(0), '{}', 'or none');

create temp table ids as
select id, n from unnest(pgflow.new_run_ids(10000, '2026-11-24 12:34:56.789012+00')) with ordinality as i (id, n);
select is((select count(distinct id) from ids), 10000::bigint, 'all different');
select set_eq(
  $$ select substr(id::text, 15, 1), substr(id::text, 20, 1) in ('8', '9', 'a', 'b') from ids $$, $$ values ('7', true) $$,
  'of version 7, in the variant of RFC 9562'
);
select is_empty($$ select from (select id, lag(id) over (order by n) as before from ids) i where before >= id $$, 'in ascending order');
create function pg_temp.time_of(id uuid) returns timestamptz
return to_timestamp(('x' || lpad(substr(replace(id::text, '-', ''), 1, 12), 16, '0'))::bit(64)::bigint / 1000.0);
select is((select pg_temp.time_of(id) from ids where n = 1), '2026-11-24 12:34:56.789+00', 'with the time, in milliseconds');
select ok((select max(pg_temp.time_of(id)) < '2026-11-24 12:34:56.792+00' from ids), 'which a batch of 10,000 exceeds by less than 3 ms');

-- Of runs
select pgflow.create_flow('f'), pgflow.add_step('f', 'a');
select results_eq(
  $$ select array_agg(input order by run_id) from pgflow.start_flows('f', (select jsonb_agg(n) from generate_series(1, 100) n)) $$,
  $$ select array_agg(to_jsonb(n)) from generate_series(1, 100) n $$, 'runs of a batch are in the order of their inputs'
);
set local pgflow.now = '2030-01-01 00:00+00';
select is(
  (select pg_temp.time_of(run_id) from pgflow.start_flow('f', '1')), '2030-01-01 00:00+00', 'their ids say when they started'
);
insert into pgflow.runs (flow_slug, input, started_at) values ('f', '"by hand"', pgflow.now());
select is(
  (select pg_temp.time_of(run_id) from pgflow.runs where input = '"by hand"'), '2030-01-01 00:00+00', 'those of runs inserted by hand, too'
);

select * from finish();
rollback;
