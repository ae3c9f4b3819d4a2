begin;
select plan(44);
set local timezone = 'UTC';

create function pg_temp.times(cron text, time_zone text, after timestamptz, quantity int default 3)
returns text
language sql
as $$
  select string_agg(to_char(t, 'MM-DD HH24:MI'), ', ' order by n)
  from pgflow.next_times(cron, time_zone, after, quantity) with ordinality as t (t, n)
$$;

select function_returns('pgflow', 'next_times', array['text', 'text', 'timestamptz', 'int'], 'setof timestamp with time zone');
set local pgflow.now = '2026-03-01 12:00+00';
select results_eq(
  $$ select pgflow.next_times('0 3 * * *') $$,
  $$ select '2026-03-02 03:00+00'::timestamptz + n * interval '1 day' from generate_series(0, 4) n $$, 'five, in UTC, from now on'
);

select is(pg_temp.times(cron, 'UTC', '2026-03-01 12:00+00'), times, cron) from (values
  ('* * * * *', '03-01 12:01, 03-01 12:02, 03-01 12:03'),
  ('*/20 12 * * *', '03-01 12:20, 03-01 12:40, 03-02 12:00'),
  ('5,10-14/2 9 1 jan *', '01-01 09:05, 01-01 09:10, 01-01 09:12'),
  ('0 0 * * 7', '03-08 00:00, 03-15 00:00, 03-22 00:00'),
  ('0 0 * * SUN', '03-08 00:00, 03-15 00:00, 03-22 00:00'),
  ('0 0 * * fri-sun', '03-06 00:00, 03-07 00:00, 03-08 00:00'),
  ('0 0 10 * fri', '03-06 00:00, 03-10 00:00, 03-13 00:00'), -- one of them is enough
  ('0 0 */5 * mon', '03-16 00:00, 04-06 00:00, 05-11 00:00'), -- both, since a field begins with *
  ('0 0 29 2 *', '02-29 00:00, 02-29 00:00, 02-29 00:00'),
  ('0 0 31 * *', '03-31 00:00, 05-31 00:00, 07-31 00:00'),
  ('  0   0 1 * * ', '04-01 00:00, 05-01 00:00, 06-01 00:00'),
  ('@hourly', '03-01 13:00, 03-01 14:00, 03-01 15:00'),
  ('@daily', '03-02 00:00, 03-03 00:00, 03-04 00:00'),
  ('@Weekly', '03-08 00:00, 03-15 00:00, 03-22 00:00'),
  ('@monthly', '04-01 00:00, 05-01 00:00, 06-01 00:00'),
  ('@yearly', '01-01 00:00, 01-01 00:00, 01-01 00:00')
) expression (cron, times);

-- Clocks that change: in Berlin from 2 to 3 on 29 March, from 3 to 2 on 25 October; in Santiago from 24 to 1 on 6 September, and on
-- Lord Howe by half an hour.
select is(pg_temp.times(cron, zone, after), times, words) from (values
  ('30 2 * * *', 'Europe/Berlin', '2026-03-28 00:00+00'::timestamptz, '03-28 01:30, 03-29 01:00, 03-30 00:30', 'a time that does not exist moves to the end of the gap'),
  ('0,30 2,3 * * *', 'Europe/Berlin', '2026-03-29 00:00+00', '03-29 01:00, 03-29 01:30, 03-30 00:00', 'and is one with others that are there'),
  ('0 * * * *', 'Europe/Berlin', '2026-03-28 23:30+00', '03-29 00:00, 03-29 01:00, 03-29 02:00', 'an expression for each hour has an hour less'),
  ('*/30 */2 * * *', 'Europe/Berlin', '2026-03-28 23:00+00', '03-28 23:30, 03-29 02:00, 03-29 02:30', 'one for each second hour, too'),
  ('30 2 * * *', 'Europe/Berlin', '2026-10-24 00:30+00', '10-25 00:30, 10-26 01:30, 10-27 01:30', 'a time that exists twice counts once'),
  ('30 2 * * *', 'Europe/Berlin', '2026-10-25 01:00+00', '10-26 01:30, 10-27 01:30, 10-28 01:30', 'the first time'),
  ('0 * * * *', 'Europe/Berlin', '2026-10-24 23:30+00', '10-25 00:00, 10-25 01:00, 10-25 02:00', 'an expression for each hour has it twice'),
  ('15 0 * * *', 'America/Santiago', '2026-09-05 03:00+00', '09-05 04:15, 09-06 04:00, 09-07 03:15', 'a gap at midnight'),
  ('15 2 * * *', 'Australia/Lord_Howe', '2026-10-02 00:00+00', '10-02 15:45, 10-03 15:30, 10-04 15:15', 'a gap of half an hour')
) change (cron, zone, after, times, words);
select is(pg_temp.times('0 12 * * *', 'asia/kolkata', '2026-03-01 12:00+00', 1), '03-02 06:30', 'a time zone in any case');

-- What is refused, and why
select throws_ok(format('select pgflow.next_times(%L)', cron), 'PT400', message, cron) from (values
  ('60 * * * *', 'the minute of the cron expression "60 * * * *" is invalid: 60 is not between 0 and 59'),
  ('* x * * *', 'the hour of the cron expression "* x * * *" is invalid: "x" is not a number'),
  ('* * 0 * *', 'the day of the month of the cron expression "* * 0 * *" is invalid: 0 is not between 1 and 31'),
  ('* * * * monday', 'the day of the week of the cron expression "* * * * monday" is invalid: "monday" is not a number, nor one of sun, mon, tue, wed, thu, fri, sat'),
  ('* * * 9-5 *', 'the month of the cron expression "* * * 9-5 *" is invalid: the range 9-5 ends before it begins'),
  ('5/15 * * * *', 'the minute of the cron expression "5/15 * * * *" is invalid: a step needs a range or * before it: 5-59/15'),
  ('*/90 * * * *', 'the minute of the cron expression "*/90 * * * *" is invalid: a step of 90 is not between 1 and 60'),
  ('0 0 1, * *', 'the day of the month of the cron expression "0 0 1, * *" is invalid: it is empty, or has a comma too many'),
  ('0 0 L * *', 'the day of the month of the cron expression "0 0 L * *" is invalid: "l" is not a number'),
  ('0 0 31 2,4 *', 'the cron expression "0 0 31 2,4 *" names no date: its months do not have such a day'),
  ('0 0 * * * *', 'the cron expression "0 0 * * * *" does not have five fields, but 6'),
  ('', 'the cron expression "" does not have five fields, but 0'),
  ('@reboot', 'the cron expression "@reboot" does not have five fields, but 1')
) wrong (cron, message);
select throws_ok($$ select pgflow.next_times(null) $$, 'PT400', 'the cron expression "" does not have five fields, but 0', 'none');
select throws_ok($$ select pgflow.next_times('@daily', 'Mars/Base') $$, 'PT400', '"Mars/Base" is not a time zone', 'another planet');
select throws_ok($$ select pgflow.next_times('@daily', quantity => 1001) $$, 'PT400', null, 'more than 1,000');

select * from finish();
rollback;
