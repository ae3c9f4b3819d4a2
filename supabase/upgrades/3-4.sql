-- From version 3 to 4: the engine's functions have other names, and say `as_of` for the time of a change.

drop function if exists pgflow.held_flow(text);
drop function if exists pgflow.keep_errors(jsonb, bigint[]);
drop function if exists pgflow.wake_workers(uuid[]);
drop function if exists pgflow.start_tasks(pgflow.message[], uuid, timestamptz, int);
drop function if exists pgflow.settle_tasks_of_runs(uuid[], pgflow.task_result[], timestamptz);
drop function if exists pgflow.settle_task(pgflow.task_result);
drop function if exists pgflow.start_steps(text, uuid[], timestamptz, int);
drop function if exists pgflow.advance(pgflow.step_change[], timestamptz, pgflow.step_key[], int);
drop function if exists pgflow.change_steps(pgflow.step_change[], timestamptz);
drop function if exists pgflow.create_tasks(pgflow.step_key[], timestamptz, int);
drop function if exists pgflow.create_other_tasks(pgflow.step_key[], timestamptz, int);
drop function if exists pgflow.advance_runs(pgflow.step_change[], timestamptz);

-- Schedules.
alter table pgflow.flows
  add column if not exists schedulable boolean not null default false,
  add column if not exists max_schedules int not null default 20,
  drop constraint if exists max_schedules_is_not_negative,
  add constraint max_schedules_is_not_negative check (max_schedules >= 0);

create table if not exists pgflow.schedules (
  schedule_id uuid primary key default (pgflow.new_run_ids())[1],
  schedule_slug text not null,
  alias text not null,
  made_by text not null default 'sql',
  cron text not null,
  time_zone text not null default 'UTC',
  input jsonb not null default 'null',
  overlap text not null default 'skip',
  catch_up text not null default 'last',
  catch_up_window int not null default 86400,
  spread int not null default 0,
  owner_id uuid,
  group_id uuid,
  created_at timestamptz not null,
  paused_at timestamptz,
  next_at timestamptz not null,
  due_at timestamptz not null,
  last_at timestamptz,
  last_run_id uuid,
  last_problem text,
  constraint slug_is_unique unique nulls not distinct (owner_id, schedule_slug),
  constraint schedule_slug_is_valid check (pgflow.is_valid_slug(schedule_slug)),
  constraint alias_is_valid check (pgflow.is_valid_slug(alias)),
  constraint made_by_is_known check (made_by in ('sql', 'flow', 'client')),
  constraint only_clients_and_sql_name_an_owner check (made_by = 'sql' or (made_by = 'client') = (owner_id is not null)),
  constraint cron_has_1000_characters_at_most check (length(cron) <= 1000),
  constraint overlap_is_known check (overlap in ('skip', 'allow', 'cancel')),
  constraint catch_up_is_known check (catch_up in ('last', 'none', 'all')),
  constraint catch_up_window_is_0_seconds_to_a_year check (catch_up_window between 0 and 31536000),
  constraint spread_is_0_seconds_to_a_day check (spread between 0 and 86400),
  constraint due_after_its_nominal_time check (due_at >= next_at)
);
create index if not exists schedules_by_due_time on pgflow.schedules (due_at);
create index if not exists schedules_by_alias on pgflow.schedules (alias);

do $$
begin
  if to_regtype('pgflow.cron_fields') is null then
    alter type pgflow.flow_definition add attribute schedulable boolean, add attribute schedules jsonb;
    create type pgflow.cron_fields as (
      minutes int[],
      hours int[],
      days int[],
      months int[],
      weekdays int[],
      is_elapsed boolean,
      both_days boolean
    );
    create type pgflow.scheduled_run as (
      schedule_id uuid,
      run_id uuid,
      nominal_at timestamptz,
      schedule_slug text,
      alias text,
      made_by text,
      input jsonb,
      owner_id uuid,
      group_id uuid
    );
    create type pgflow.schedule_turn as (
      schedule pgflow.schedules,
      starts timestamptz[],
      last_at timestamptz,
      next_at timestamptz,
      open_run_id uuid,
      problem text
    );
  end if;
end
$$;
