begin;

-- What each column is when it is given, and when it is not.
create temp table columns (target text, name text, present text, missing text);
insert into columns values
  ('runs', 'completed_at', 'now()', 'null'),
  ('runs', 'failed_at', 'now()', 'null'),
  ('runs', 'cancelled_at', 'now()', 'null'),
  ('runs', 'output', '''1''', 'null'),
  ('runs', 'error', '''x''', 'null'),
  ('step_states', 'started_at', 'now()', 'null'),
  ('step_states', 'completed_at', 'now()', 'null'),
  ('step_states', 'failed_at', 'now()', 'null'),
  ('step_states', 'skipped_at', 'now()', 'null'),
  ('step_states', 'output', '''1''', 'null'),
  ('step_states', 'error', '''x''', 'null'),
  ('step_states', 'skip_reason', '''x''', 'null'),
  ('step_tasks', 'message_id', '1', 'null'),
  ('step_tasks', 'waits_for', '''signal''', 'null'),
  ('step_tasks', 'due_at', 'now()', 'null'),
  ('step_tasks', 'attempts_count', '1', '0'),
  ('step_tasks', 'started_at', 'now()', 'null'),
  ('step_tasks', 'completed_at', 'now()', 'null'),
  ('step_tasks', 'failed_at', 'now()', 'null'),
  ('step_tasks', 'error_message', '''x''', 'null');

-- For each status, what it needs and what it may have; everything else is refused.
create temp table rules (target text, status text, needs text[], may_have text[]);
insert into rules values
  ('runs', 'started', '{}', '{error}'),
  ('runs', 'completed', '{completed_at, output}', '{error}'),
  ('runs', 'failed', '{failed_at, error}', '{}'),
  ('runs', 'cancelled', '{cancelled_at}', '{error}'),
  ('step_states', 'created', '{}', '{error}'),
  ('step_states', 'started', '{started_at}', '{error}'),
  ('step_states', 'completed', '{started_at, completed_at, output}', '{error}'),
  ('step_states', 'failed', '{failed_at, error}', '{started_at}'),
  ('step_states', 'skipped', '{skipped_at, skip_reason}', '{started_at, error}'),
  ('step_states', 'cancelled', '{}', '{started_at, error}'),
  ('step_tasks', 'waiting', '{waits_for}', '{due_at, attempts_count, started_at, error_message}'),
  ('step_tasks', 'queued', '{message_id}', '{attempts_count, started_at, error_message}'),
  ('step_tasks', 'started', '{message_id, attempts_count, started_at}', '{error_message}'),
  ('step_tasks', 'completed', '{completed_at}', '{message_id, attempts_count, started_at, error_message}'),
  ('step_tasks', 'failed', '{failed_at, error_message}', '{message_id, attempts_count, started_at}'),
  ('step_tasks', 'skipped', '{}', '{message_id, attempts_count, started_at, error_message}'),
  ('step_tasks', 'cancelled', '{}', '{message_id, attempts_count, started_at, error_message}');

-- Every status, and one that does not exist, with every set of columns.
create temp table cases as
with sets as (
  select c.target, array_remove(array_agg(case when bits & (1 << c.n - 1) > 0 then c.name end order by c.n), null) as given
  from (select *, row_number() over (partition by target)::int as n from columns) c
  cross join generate_series(0, 255) bits
  where bits < 1 << (select count(*)::int from columns other where other.target = c.target)
  group by c.target, bits
)
select s.target, status, s.given
from sets s
cross join lateral (
  select r.status from rules r where r.target = s.target union all select 'exploded'
) statuses (status);

create function pg_temp.is_allowed(target text, status text, given text[]) returns boolean language plpgsql as $$
begin
  execute format('update pgflow.%I set status = %L, %s', target, status, (
    select string_agg(format('%I = %s', c.name, case when c.name = any (given) then c.present else c.missing end), ', ')
    from columns c where c.target = is_allowed.target
  ));
  raise exception using errcode = 'UNDO0';
exception
  when check_violation then return false;
  when sqlstate 'UNDO0' then return true;
end
$$;

select plan(25);

select pgflow.create_flow('f'), pgflow.add_step('f', 'a');
select pgflow.start_flow('f', '1', run_id => '10000000-0000-4000-8000-000000000001');

select is((select count(*) from cases where target = 'runs'), 160::bigint, 'all combinations of a run');
select set_eq(
  format($$ select status, given from cases where target = %1$L and pg_temp.is_allowed(target, status, given) $$, target),
  format($$ select c.status, c.given from cases c join rules r using (target, status)
     where target = %1$L and c.given @> r.needs and c.given <@ (r.needs || r.may_have) $$, target),
  'a status of ' || target || ' comes with what it needs, and nothing of another'
) from unnest(array['runs', 'step_states', 'step_tasks']) target;

-- Counters
select throws_ok('update pgflow.step_states set remaining_deps = -1', '23514', null, 'remaining_deps is not negative');
select throws_ok('update pgflow.step_states set remaining_deps = 1', '23514', null, 'a started step waits for nothing');
select throws_ok('update pgflow.step_states set remaining_tasks = -1', '23514', null, 'remaining_tasks is not negative');
select throws_ok('update pgflow.step_states set remaining_tasks = 2', '23514', null, 'nor more than there were');
select throws_ok('update pgflow.step_states set retries = -1', '23514', null, 'retries is not negative');
select throws_ok('update pgflow.step_tasks set attempts_count = -1', '23514', null, 'attempts_count is not negative');

-- Waits
select throws_ok(
  $$ update pgflow.step_tasks set status = 'waiting', waits_for = 'luck', message_id = null $$, '23514', null, 'a task waits for something known'
);
select throws_ok(
  $$ update pgflow.step_tasks set status = 'waiting', waits_for = 'time', message_id = null $$, '23514', null, 'what waits for the time is due'
);

-- Relations
prepare relate as update pgflow.runs set parent_run_id = $1, parent_step_slug = $2, parent_task_index = $3, depth = $4;
select lives_ok($$ execute relate(gen_random_uuid(), 'a', 0, 1) $$, 'a child names a task, of a run that may be gone');
select throws_ok($$ execute relate(gen_random_uuid(), null, null, 1) $$, '23514', null, 'not a run alone');
select throws_ok($$ execute relate(gen_random_uuid(), 'a', null, 1) $$, '23514', null, 'nor a step');
select throws_ok($$ execute relate(gen_random_uuid(), 'a', 0, 0) $$, '23514', null, 'it is deeper than a root');
select throws_ok($$ execute relate(null, null, null, 1) $$, '23514', null, 'which has the depth 0');
select throws_ok($$ execute relate(gen_random_uuid(), 'a', 0, 9) $$, '23514', null, 'there are 8 levels below it');
select lives_ok(
  $$ update pgflow.runs set trace_parent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01' $$, 'a traceparent of W3C'
);
select throws_ok($$ update pgflow.runs set trace_parent = 'x' $$, '23514', null, 'and nothing else');

-- Limits
select throws_ok($$ update pgflow.runs set error = repeat('x', 10001) $$, '23514', null, 'an error has 10,000 characters at most');
select throws_ok($$ update pgflow.runs set metadata = to_jsonb(repeat('x', 65535)) $$, '23514', null, 'metadata have 64 KB at most');

-- Definitions
select throws_ok(
  $$ update pgflow.steps set step_type = 'map' $$, '23514', null, 'a map has a source'
);
select throws_ok($$ insert into pgflow.flow_aliases values ('run', 'f') $$, '23514', null, 'an alias is a slug');
select throws_ok($$ delete from pgflow.flows where flow_slug = 'f' $$, 'PT409', null, 'a flow that has runs stays');

select * from finish();
rollback;
