-- Chapter 32: plans.
--
-- What the engine does is plpgsql, since Postgres keeps plans of plpgsql only. A kept plan is made when a session first
-- needs it; one from when the tables were empty would read them whole for ever. So the engine's entry points (`settle`,
-- `claim_tasks`, …) are set up for index access, joins in the written order and generic plans, whatever the statistics
-- say; what they call inherits it. jit is off because switched-off nodes look expensive.
--
-- Triggers of others on these tables must not inherit it, nor keep plans that were made so. A statement is planned before
-- its first trigger fires: so a first trigger of ours brings the session's settings back, and a last one ends that.
-- `pgflow.plans` names the statements, the innermost first, whose triggers fire at the moment; one that writes several tables is
-- there once for each. Where no one else has a
-- trigger, the first statement of a transaction finds that out, and the others do nothing: `pgflow.only_ours` is then the
-- number of triggers that the transaction had created by then.

create function pgflow.tg_plans__before()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  plans text := current_setting('pgflow.plans', true);
  settings text;
begin
  if not exists (
    select from pg_trigger t
    where t.tgrelid = any (array['pgflow.runs', 'pgflow.step_states', 'pgflow.step_tasks', 'pgflow.run_events']::regclass[])
      and not t.tgisinternal
      and t.tgname not in (
        '_000_plans', '_100_children', '_100_children_of_all', '_900_broadcast', '_900_events_of_insert',
        '_900_events_of_update', '~plans'
      )
  ) then
    perform set_config('pgflow.only_ours', pg_stat_get_xact_tuples_inserted('pg_trigger'::regclass)::text, true);
    return null;
  end if;
  if (current_setting('enable_seqscan') = 'on' or current_setting('plan_cache_mode') <> 'force_generic_plan')
     and starts_with(plans, concat(pg_trigger_depth(), ' ')) is not true then
    return null; -- no statement of the engine
  end if;
  settings := concat(
    set_config('pgflow.plans', concat(pg_trigger_depth(), ' ', tg_op, ';', plans), true),
    set_config('plan_cache_mode', null, true),
    set_config('enable_seqscan', null, true),
    set_config('enable_indexscan', null, true),
    set_config('enable_indexonlyscan', null, true),
    set_config('enable_bitmapscan', null, true),
    set_config('enable_hashjoin', null, true),
    set_config('enable_mergejoin', null, true),
    set_config('enable_material', null, true),
    set_config('join_collapse_limit', null, true),
    set_config('jit', null, true)
  );
  return null;
end
$$;

create function pgflow.tg_plans__after()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  plans text := current_setting('pgflow.plans');
  depth text := concat(pg_trigger_depth(), ' ');
  place int := strpos(';' || plans, concat(';', depth, tg_op, ';'));
  rest text;
  settings text;
begin
  if place = 0 then
    return null; -- that of another statement
  end if;
  rest := overlay(plans placing '' from place for length(depth || tg_op || ';'));
  settings := set_config('pgflow.plans', rest, true);
  if not starts_with(rest, depth) then
    settings := concat(
      set_config('plan_cache_mode', 'force_generic_plan', true),
      set_config('enable_seqscan', 'off', true),
      set_config('enable_bitmapscan', 'off', true),
      set_config('enable_hashjoin', 'off', true),
      set_config('enable_mergejoin', 'off', true),
      set_config('enable_material', 'off', true),
      set_config('join_collapse_limit', '1', true),
      set_config('jit', 'off', true)
    );
  end if;
  return null;
end
$$;

create trigger _000_plans before insert or update or delete on pgflow.runs
  for each statement
  when (current_setting('pgflow.only_ours', true) is distinct from pg_stat_get_xact_tuples_inserted('pg_trigger'::regclass)::text)
  execute function pgflow.tg_plans__before();
create trigger "~plans" after insert or update or delete on pgflow.runs
  for each statement when (current_setting('pgflow.plans', true) <> '') execute function pgflow.tg_plans__after();

create trigger _000_plans before insert or update or delete on pgflow.step_states
  for each statement
  when (current_setting('pgflow.only_ours', true) is distinct from pg_stat_get_xact_tuples_inserted('pg_trigger'::regclass)::text)
  execute function pgflow.tg_plans__before();
create trigger "~plans" after insert or update or delete on pgflow.step_states
  for each statement when (current_setting('pgflow.plans', true) <> '') execute function pgflow.tg_plans__after();

create trigger _000_plans before insert or update or delete on pgflow.step_tasks
  for each statement
  when (current_setting('pgflow.only_ours', true) is distinct from pg_stat_get_xact_tuples_inserted('pg_trigger'::regclass)::text)
  execute function pgflow.tg_plans__before();
create trigger "~plans" after insert or update or delete on pgflow.step_tasks
  for each statement when (current_setting('pgflow.plans', true) <> '') execute function pgflow.tg_plans__after();

create trigger _000_plans before insert or update or delete on pgflow.run_events
  for each statement
  when (current_setting('pgflow.only_ours', true) is distinct from pg_stat_get_xact_tuples_inserted('pg_trigger'::regclass)::text)
  execute function pgflow.tg_plans__before();
create trigger "~plans" after insert or update or delete on pgflow.run_events
  for each statement when (current_setting('pgflow.plans', true) <> '') execute function pgflow.tg_plans__after();

-- Foreign keys are checked by such triggers, too, with plans that a session keeps. What they refer to is vacuumed and analyzed when
-- it is large enough for its keys' index.
alter table pgflow.runs set (autovacuum_vacuum_threshold = 5000, autovacuum_analyze_threshold = 5000);
