begin;
select plan(8);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

-- Without triggers of others the engine leaves its settings as they are; the triggers that this transaction makes below
-- are noticed all the same
select pgflow.create_flow('e'), pgflow.add_step('e', 'a'), pgflow.start_flow('e', '1');
select matches(current_setting('pgflow.only_ours', true), '^\d+$', 'all triggers of the engine are known as its own');

-- What triggers of others see, of every kind and on every table that the engine writes
create table public.seen (what text, setting text, value text);
create function public.tg_look() returns trigger language plpgsql as $$
begin
  insert into public.seen
  select concat_ws(' ', tg_when, tg_op, tg_level, tg_table_name), name, current_setting(name)
  from unnest(array['plan_cache_mode', 'enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_material', 'join_collapse_limit', 'jit']) name;
  return case when tg_level = 'ROW' and tg_when = 'BEFORE' then case tg_op when 'DELETE' then old else new end end;
end
$$;
do $$
declare
  kind record;
begin
  for kind in
    select t.name, w.moment, l.level from unnest(array['runs', 'step_states', 'step_tasks', 'run_events']) t (name)
    cross join unnest(array['before', 'after']) w (moment) cross join unnest(array['row', 'statement']) l (level)
  loop
    execute format('create trigger %I %s insert or update or delete on pgflow.%I for each %s execute function public.tg_look()',
      'zz_' || kind.moment || kind.level, kind.moment, kind.name, kind.level);
  end loop;
end
$$;
create temp table usual as select name, current_setting(name) as value
from unnest(array['plan_cache_mode', 'enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_material', 'join_collapse_limit', 'jit']) name;

select pgflow.create_flow('f', base_delay => 0), pgflow.add_step('f', 'a', step_type => 'map'), pgflow.add_step('f', 'b', array['a']);
select pgflow.start_flow('f', '[1, 2]', run_id => pg_temp.run(n)) from generate_series(1, 2) n;
select pgflow.settle_and_claim('[]', '{f}', 10, gen_random_uuid());
select pgflow.settle_tasks(jsonb_agg(jsonb_build_object('run_id', run_id, 'step_slug', step_slug, 'task_index', task_index, 'output', 1))) from pgflow.step_tasks;
select pgflow.fail_task(pg_temp.run(1), 'b', 0, 'no'), pgflow.cancel_run(pg_temp.run(1)), pgflow.retry_run(pg_temp.run(1));
select pgflow.complete_task(pg_temp.run(2), 'b', 0, '1');
select pgflow.prune_runs('0');

select is_empty('select seen.* from public.seen join usual on name = setting where seen.value <> usual.value', 'triggers see the settings of the session');
select cmp_ok((select count(distinct what) from public.seen), '>=', 40::bigint, 'of all kinds');

-- The engine goes on with its own, and leaves none behind
create table public.plans (enable_seqscan text);
create function public.tg_note() returns trigger language plpgsql as $$ begin insert into public.plans values (current_setting('enable_seqscan')); return null; end $$;
create trigger "~zz" after update on pgflow.step_states for each statement execute function public.tg_note();
select pgflow.fail_task(pg_temp.run(1), 'b', 0, 'no');
select isnt_empty($$ select from public.plans where enable_seqscan = 'off' $$, 'after the last trigger, the engine''s plans go on');
select is_empty('select name from usual where value <> current_setting(name)', 'a call leaves the session as it was');
update pgflow.runs set metadata = '1';
insert into pgflow.run_events (run_id, seq, type, at) select run_id, 1000, 'run:retried', now() from pgflow.runs;
select is_empty('select name from usual where value <> current_setting(name)', 'and so does SQL by hand');

-- A trigger that uses the engine
create function public.tg_start() returns trigger language plpgsql as $$
begin
  if new.flow_slug = 'f' and new.status = 'cancelled' then perform pgflow.start_flow('g', '1'); end if;
  return null;
end
$$;
create trigger start after update on pgflow.runs for each row execute function public.tg_start();
select pgflow.create_flow('g'), pgflow.add_step('g', 'a');
select pgflow.cancel_run(pg_temp.run(1));
select is((select count(*) from pgflow.runs where flow_slug = 'g'), 1::bigint, 'it starts a run');
select is_empty('select seen.* from public.seen join usual on name = setting where seen.value <> usual.value', 'others still see the settings of the session');

select * from finish();
rollback;
