begin;
select plan(5);

select results_eq(
  $$ select pgflow.calculate_retry_delay(5, n) from generate_series(0, 4) n $$,
  array[5, 10, 20, 40, 80]::numeric[],
  'base_delay * 2^attempts_count'
);
select is(pgflow.calculate_retry_delay(0.5, 1), 1.0, 'a base delay may be a fraction');
select is(pgflow.calculate_retry_delay(0, 7), 0.0, 'no base delay, no delay');
select is(pgflow.calculate_retry_delay(5, 1000000), 31536000.0, 'a year at most, however many attempts');
select is(pgflow.calculate_retry_delay(base_delay => 1, attempts_count => 3), 8.0, 'takes named arguments');

select * from finish();
rollback;
