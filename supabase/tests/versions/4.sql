-- pgflow 4: everything that the database holds of it, in 28 chapters. Written by @pgflow/sdk.
-- It is applied once, in one transaction: psql -1 -v ON_ERROR_STOP=1 -f pgflow.sql
--
--   Chapter 1: the schemas, the clock, and the small rules that the other chapters use
--   Chapter 2: the tables
--   Chapter 3: the queues
--   Chapter 4: definitions
--   Chapter 5: a definition: a whole flow as one JSON value
--   Chapter 6: a whole flow in one call, what workers and migrations use; versions
--   Chapter 7: JSON Schema
--   Chapter 8: runs begin
--   Chapter 9: runs move forward
--   Chapter 10: tasks are settled, in batches
--   Chapter 11: tasks are claimed
--   Chapter 12: what workers ask for
--   Chapter 13: a run is cancelled, goes on after it ended, or is erased with its owner
--   Chapter 14: steps that no worker runs
--   Chapter 15: every transition becomes an event
--   Chapter 16: events are broadcast over Supabase Realtime, to make clients fast
--   Chapter 17: what has to be done from time to time, by pg_cron or by hand
--   Chapter 18: workers that sleep are woken, where pg_cron and pg_net are installed
--   Chapter 19: cron expressions: what they say, and the times that they name in a time zone
--   Chapter 20: schedules: flows that start by themselves, at the times of a cron expression
--   Chapter 21: the API of workers that have a secret key instead of the database's password
--   Chapter 22: plans
--   Chapter 23: hooks
--   Chapter 24: rules
--   Chapter 25: what clients ask for
--   Chapter 26: waits as clients see them: who may decide, and what there is for them to decide
--   Chapter 27: the exposed API of clients: thin functions that run as their caller
--   Chapter 28: who may do what

-- Chapter 1: the schemas, the clock, and the small rules that the other chapters use.
--
-- How the engine works
--
-- A flow is a directed acyclic graph: a row of `flows`, a row of `steps` for each node, a row of `deps` for each edge. A run is
-- one execution of it: a row of `runs`, with a row of `step_states` for each step. A step that has started has rows of
-- `step_tasks`: one, or for a map one for each item of an array. A task that is open has a message in the pgmq queue of its flow.
-- The message carries ids only; all data are in the tables.
--
-- A run moves by calls of functions, each of them for a batch of runs or tasks:
--   start    `start_flow` inserts the run and its step states, and starts the steps that depend on nothing.
--   claim    `claim_tasks` reads messages and counts an attempt of each task. pgmq hides a message from other workers for the
--            timeout of the step: that is the lease. If the worker dies, the message reappears and another worker claims it.
--   settle   `settle` stores results. A result names its attempt, and is ignored if the task has been claimed again meanwhile.
--            A failed attempt makes the task wait for the next one, or fails it for good after the last.
--   advance  `advance` takes over where a step has ended. In waves it ends and starts steps, and decides about those whose deps
--            have all ended (conditions, empty maps, skips), until nothing changes; then it creates tasks and messages, and
--            ends runs. Starts, settlements and retries call it in their own transaction; no background process is involved.
-- Events follow from this: statement-level triggers on `runs` and `step_states` write a row of `run_events` for each transition,
-- and a trigger on `run_events` broadcasts those of runs that somebody watches. The functions above write no events.
--
-- Locks are taken in one order: run, step state, task. Whoever has waited for a lock looks at the status again. Claims wait for
-- no lock, and nobody waits for a message: both skip what is locked.
--
-- After each transaction, without exception:
--   * A status and its columns agree: `check ((status = 'completed') = (completed_at is not null))`.
--   * completed, failed, cancelled and skipped are final. Only `retry_run` reopens a run, with the steps that have not completed.
--   * Under a run or step that has ended nothing is open: no step, no task, no message.
--   * Each transition has one event. The events of a run are numbered 1, 2, 3 … without a gap.
--   * The shape of a flow does not change while it has runs: a changed flow is a new version.
--
-- Conventions
--
-- `pgflow` holds tables and engine and is never exposed. `pgflow_public` is what PostgREST exposes to clients, `pgflow_worker`
-- what it exposes to workers that have a secret key: thin functions that run as their caller. Every function has
-- `search_path = pg_catalog, pg_temp`, so that no temporary type or function can take the place of a built-in one (with an
-- empty path, pg_temp is searched first); all else is named in full. All grants and policies are in the access chapter.
--
-- What precedes the schemas is for an install only; an upgrade leaves it out.

-- Other software uses the schema name pgflow, too.
do $$
declare
  taken text;
  version int;
begin
  select string_agg(format('"%s"', n.nspname), ', ' order by n.nspname) into taken
  from pg_namespace n
  where n.nspname in ('pgflow', 'pgflow_public', 'pgflow_worker');
  if to_regprocedure('pgflow.schema_version()') is not null then
    execute 'select pgflow.schema_version()' into version;
    raise exception using
      errcode = 'PT409',
      message = format('pgflow is already installed in this database, in version %s', version),
      hint = 'To bring it up to date, run: npx pgflow upgrade';
  elsif taken is not null then
    raise exception using
      errcode = 'PT409',
      message = format('this database has a schema %s already, and it is not that of @pgflow/sdk', taken),
      detail = case when to_regclass('pgflow.step_states') is not null
        then 'It looks like the engine of @pgflow/core, which uses the same name; one database cannot hold both.'
        else 'One database cannot hold both.'
      end,
      hint = 'See docs/moving-from-pgflow-core.md, or drop or rename that schema.';
  end if;
end
$$;

-- The roles that PostgREST acts as. A Supabase project has them; a plain Postgres gets them, without a login.
do $$
declare
  role text;
begin
  foreach role in array array['anon', 'authenticated', 'service_role'] loop
    continue when exists (select from pg_roles r where r.rolname = role);
    begin
      execute format('create role %I nologin', role);
      execute format('grant %I to current_user', role);
    exception
      when duplicate_object or unique_violation then null; -- another database of this server was faster
      when insufficient_privilege then
        raise exception using
          errcode = 'PT403',
          message = format('the role %I is missing, and %I may not create it', role, current_user),
          hint = format('Let a superuser run: create role %I nologin; grant %I to %I;', role, role, current_user);
    end;
  end loop;
end
$$;

create extension if not exists pgmq;

create schema pgflow;
create schema pgflow_public;
create schema pgflow_worker;

comment on schema pgflow is 'Workflow engine: definitions, run-time state, functions that move runs forward. Not exposed.';
comment on schema pgflow_public is 'The API of pgflow for clients; add it to the exposed schemas of your project.';
comment on schema pgflow_worker is
  'The API of pgflow for workers with a secret key instead of a password of the database; add it to the exposed schemas where you run such workers. For the service role only.';

-- Which version of the migrations this database has. The packages compare it with the version they need; a change that they
-- depend on counts it up, with a file in supabase/upgrades.
--   select pgflow.schema_version();  -- 4
create function pgflow.schema_version()
returns int
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 4
$$;
comment on function pgflow.schema_version is 'The version of the installed migrations, which the packages compare with the one they need.';

-- The one clock of the engine. A test sets it: `set pgflow.now = '2030-01-01'`. (In plpgsql, as other small functions that
-- every call needs: one in SQL that has settings is planned anew each time, which costs three times as much.)
create function pgflow.now()
returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(nullif(current_setting('pgflow.now', true), '')::timestamptz, clock_timestamp());
end
$$;
comment on function pgflow.now is 'The time, or what the setting pgflow.now says it is.';

-- Ids for new runs: UUIDs of version 7, ascending. They begin with the time in milliseconds, then 12 bits with its
-- fraction (1/4096 ms) plus the place in the batch, then 62 random bits. New rows so land on the right edge of every index,
-- and a range of ids is a range of time.
--   select pgflow.new_run_ids(3);
create function pgflow.new_run_ids(quantity int default 1, at timestamptz default pgflow.now())
returns uuid[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  tick bigint := extract(epoch from new_run_ids.at) * 4096000;
  ids uuid[] := '{}';
begin
  for n in 1 .. new_run_ids.quantity loop -- a query costs ten times as much for one id, and no less for many
    ids := ids || (
      lpad(to_hex(tick >> 12), 12, '0') || '7' || lpad(to_hex(tick & 4095), 3, '0')
      || substr(gen_random_uuid()::text, 20) -- its variant and random bits
    )::uuid;
    tick := tick + 1;
  end loop;
  return ids;
end
$$;
comment on function pgflow.new_run_ids is 'Ids for new runs: UUIDs of version 7, in ascending order.';

-- Whether a text can name a flow or a step.
--   select pgflow.is_valid_slug('analyze_document');
create function pgflow.is_valid_slug(slug text)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return slug is not null
     and slug <> 'run'
     and length(slug) <= 128
     and slug ~ '^[a-zA-Z_][a-zA-Z0-9_]*$';
end
$$;
comment on function pgflow.is_valid_slug is
  'True for 1 to 128 letters, digits and underscores that do not begin with a digit; `run` is reserved.';

-- Raises PT400 where a text cannot name a flow or a step.
create function pgflow.assert_valid_slug(slug text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not pgflow.is_valid_slug(slug) then
    raise exception using
      errcode = 'PT400',
      message = format('%s is not a valid slug', coalesce(to_json(left(slug, 140))::text, 'null')),
      hint = 'Use 1 to 128 letters, digits and underscores, not a digit first, and not the reserved word "run".';
  end if;
end
$$;

-- Seconds to wait before the next attempt: base_delay * 2^attempts_count, a year at most.
--   select pgflow.calculate_retry_delay(5, 1);  -- 10
create function pgflow.calculate_retry_delay(base_delay numeric, attempts_count int)
returns numeric
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select least(least(base_delay, 31536000) * power(2::numeric, least(attempts_count, 30)), 31536000)
$$;
comment on function pgflow.calculate_retry_delay is
  'Seconds before the next attempt after attempts_count attempts: base_delay * 2^attempts_count, a year at most.';

-- Chapter 2: the tables. Definitions first, then run-time state, then the event log.
--
-- Statuses are text; what belongs to a status is an equality, so that no row can contradict itself. Postgres prepares each
-- check constraint of a table anew for each statement, at some microseconds, so what is rarely there shares one.
--
-- Half of each page of the tables that change is left free: rows of one batch lie side by side, since ids follow time, and all of
-- them have to find room for a new version on their page; else each update writes every index.
--
-- Step states, tasks and events have no foreign key to what they belong to: its check would look up, lock and log a row for each
-- row that is written, a quarter of the time that starting many runs takes. The engine writes them while it holds the run's lock.
-- Triggers at the end of this chapter delete them with their run.

create table pgflow.flows (
  flow_slug text primary key,
  alias text not null,
  version int not null default 1,
  queue_name text not null unique,
  opt_max_attempts int not null default 3,
  opt_base_delay numeric not null default 5,
  opt_timeout int not null default 60,
  shape_hash text,
  input_schema jsonb,
  output_schema jsonb,
  start_role text not null default 'service_role',
  broadcast text not null default 'watched',
  max_input_bytes int not null default 1048576,
  created_at timestamptz not null default now(),
  schedulable boolean not null default false,
  max_schedules int not null default 20,
  constraint flow_slug_is_valid check (pgflow.is_valid_slug(flow_slug)),
  constraint alias_is_valid check (pgflow.is_valid_slug(alias)),
  constraint version_is_unique unique (alias, version),
  constraint version_is_positive check (version >= 1),
  constraint the_first_version_has_the_alias_as_slug check ((version = 1) = (flow_slug = alias)),
  constraint max_attempts_is_not_negative check (opt_max_attempts >= 0),
  constraint base_delay_is_0_seconds_to_a_year check (opt_base_delay between 0 and 31536000),
  constraint timeout_is_1_second_to_a_year check (opt_timeout between 1 and 31536000),
  constraint start_role_is_known check (start_role in ('service_role', 'authenticated', 'anon')),
  constraint broadcast_is_known check (broadcast in ('watched', 'always', 'never')),
  constraint max_input_bytes_is_positive check (max_input_bytes >= 1),
  constraint max_schedules_is_not_negative check (max_schedules >= 0)
);
create index flows_always_broadcast on pgflow.flows (flow_slug) where broadcast = 'always';
comment on table pgflow.flows is
  'A flow: an immutable definition, its defaults in seconds, and who may start it. max_input_bytes is the limit for what clients send as one input, as JSON text. If it is schedulable, users may have up to max_schedules schedules of it each. Its versions share an alias. shape_hash is that of the shape it was registered with; null where it was built step by step.';

create table pgflow.flow_aliases (
  alias text primary key,
  flow_slug text not null references pgflow.flows,
  constraint alias_is_valid check (pgflow.is_valid_slug(alias))
);
create index flow_aliases_by_flow on pgflow.flow_aliases (flow_slug);
comment on table pgflow.flow_aliases is
  'A stable name that points to the newest version of a flow. A name without a row here is that of the flow itself.';

create table pgflow.steps (
  flow_slug text not null references pgflow.flows,
  step_slug text not null,
  step_index int not null,
  step_type text not null default 'single',
  deps_count int not null,
  opt_max_attempts int,
  opt_base_delay numeric,
  opt_timeout int,
  opt_start_delay int,
  run_if jsonb,
  run_unless jsonb,
  when_unmet text not null default 'skip-cascade',
  when_exhausted text not null default 'fail',
  map_source text,
  map_path text,
  is_plain boolean not null generated always as (step_type = 'single' and run_if is null and run_unless is null) stored,
  input_schema jsonb,
  output_schema jsonb,
  created_at timestamptz not null default now(),
  completed_by text,
  assignees_path text,
  not_by_owner boolean,
  when_timed_out text,
  timed_out_output jsonb,
  webhook text,
  until_path text,
  opt_sleep_for int,
  primary key (flow_slug, step_slug),
  constraint step_index_is_unique unique (flow_slug, step_index),
  constraint step_slug_is_valid check (pgflow.is_valid_slug(step_slug)),
  constraint step_type_is_known check (step_type in ('single', 'map', 'wait', 'sleep')),
  constraint only_maps_have_a_source check ((step_type = 'map') = (map_source is not null)),
  constraint only_maps_have_a_path check (step_type = 'map' or map_path is null),
  constraint map_path_has_1000_characters_at_most check (length(map_path) <= 1000),
  constraint deps_count_is_not_negative check (deps_count >= 0),
  constraint max_attempts_is_not_negative check (opt_max_attempts >= 0),
  constraint base_delay_is_0_seconds_to_a_year check (opt_base_delay between 0 and 31536000),
  constraint timeout_is_1_second_to_a_year check (opt_timeout between 1 and 31536000),
  constraint start_delay_is_0_seconds_to_a_year check (opt_start_delay between 0 and 31536000),
  constraint when_unmet_is_known check (when_unmet in ('fail', 'skip', 'skip-cascade')),
  constraint when_exhausted_is_known check (when_exhausted in ('fail', 'skip', 'skip-cascade')),
  constraint only_waits_are_completed_by_somebody check (
    num_nonnulls(completed_by, not_by_owner, when_timed_out) = case step_type when 'wait' then 3 else 0 end
    and (step_type = 'wait' or num_nonnulls(timed_out_output, webhook) = 0)
  ),
  constraint completed_by_is_known check (completed_by in ('service_role', 'owner', 'authenticated', 'assignees')),
  constraint only_assignees_have_a_path check ((completed_by is not distinct from 'assignees') = (assignees_path is not null)),
  constraint when_timed_out_is_known check (when_timed_out in ('fail', 'skip', 'skip-cascade', 'complete')),
  constraint only_complete_has_an_output check (timed_out_output is null or when_timed_out = 'complete'),
  constraint webhook_is_known check (webhook in ('plain', 'stripe', 'github', 'slack', 'standard')),
  constraint only_sleeps_end_at_one_time check (
    num_nonnulls(opt_sleep_for, until_path) = case step_type when 'sleep' then 1 else 0 end
  ),
  constraint sleep_for_is_1_second_to_a_year check (opt_sleep_for between 1 and 31536000),
  constraint paths_have_1000_characters_at_most check (length(assignees_path) <= 1000 and length(until_path) <= 1000),
  constraint waits_and_sleeps_have_no_attempts check (
    step_type in ('single', 'map')
    or num_nonnulls(opt_max_attempts, opt_base_delay, opt_start_delay) = 0
      and (step_type = 'wait' or opt_timeout is null)
  )
);
comment on table pgflow.steps is
  'A node of a flow''s DAG; an option that is null is the flow''s, except that a wait without a timeout has no end. A plain step starts as soon as its deps are closed. A wait is completed by the service role, the owner, anybody who is signed in, or the users at assignees_path; a sleep ends after opt_sleep_for seconds, or at the time at until_path.';

-- The options of steps, where they have none of their own their flow's; delays and times in seconds. Of no attempt there
-- is one, whose failure is final.
create view pgflow.step_options
with (security_invoker = true)
as
select s.flow_slug, s.step_slug,
       greatest(1, coalesce(s.opt_max_attempts, f.opt_max_attempts)) as max_attempts,
       coalesce(s.opt_base_delay, f.opt_base_delay) as base_delay,
       coalesce(s.opt_timeout, f.opt_timeout) as timeout
from pgflow.steps s
join pgflow.flows f using (flow_slug);
comment on view pgflow.step_options is 'The options that hold for steps: their own, else their flow''s.';

create table pgflow.deps (
  flow_slug text not null,
  dep_slug text not null,
  step_slug text not null,
  primary key (flow_slug, dep_slug, step_slug),
  foreign key (flow_slug, dep_slug) references pgflow.steps,
  foreign key (flow_slug, step_slug) references pgflow.steps,
  constraint no_step_waits_for_itself check (dep_slug <> step_slug)
);
create index deps_by_step on pgflow.deps (flow_slug, step_slug);
comment on table pgflow.deps is 'An edge of a flow''s DAG: step_slug waits for dep_slug.';

create table pgflow.runs (
  run_id uuid primary key default (pgflow.new_run_ids())[1],
  flow_slug text not null, -- a flow that has runs cannot be deleted: see the triggers on flows and steps
  status text not null default 'started',
  input jsonb not null,
  output jsonb,
  error text,
  owner_id uuid,
  group_id uuid,
  idempotency_key text,
  metadata jsonb,
  parent_run_id uuid,
  parent_step_slug text,
  parent_task_index int,
  depth int not null default 0,
  trace_parent text,
  started_at timestamptz not null,
  completed_at timestamptz,
  failed_at timestamptz,
  cancelled_at timestamptz,
  constraint status_is_known check (status in ('started', 'completed', 'failed', 'cancelled')),
  constraint completed_has_its_time check ((status = 'completed') = (completed_at is not null)),
  constraint completed_has_an_output check ((status = 'completed') = (output is not null)),
  constraint failed_has_its_time check ((status = 'failed') = (failed_at is not null)),
  constraint cancelled_has_its_time check ((status = 'cancelled') = (cancelled_at is not null)),
  constraint failed_has_an_error check (status <> 'failed' or error is not null),
  constraint a_child_names_the_task_of_its_parent check (
    num_nonnulls(parent_run_id, parent_step_slug, parent_task_index) = case when depth > 0 then 3 else 0 end
    and depth between 0 and 8
  ),
  constraint optional_values_are_within_limits check (
    length(idempotency_key) between 1 and 255 and octet_length(metadata::text) <= 65536 and length(error) <= 10000
    and trace_parent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
  )
) with (fillfactor = 50);
create index runs_by_flow on pgflow.runs (flow_slug, started_at);
create index runs_by_owner on pgflow.runs (owner_id, started_at) where owner_id is not null;
create index runs_by_group on pgflow.runs (group_id, started_at) where group_id is not null;
comment on table pgflow.runs is
  'One execution of a flow. idempotency_key is the key that it was started with, for people to look at: run_keys decides. A child names the task of its parent, which may be deleted before it; depth is 0 of a root. trace_parent is a W3C traceparent.';

create table pgflow.run_keys (
  run_id uuid primary key references pgflow.runs on delete cascade deferrable initially deferred, -- a key is taken first
  alias text not null,
  key text not null,
  owner_id uuid,
  constraint key_is_unique unique nulls not distinct (owner_id, alias, key),
  constraint key_has_1_to_255_characters check (length(key) between 1 and 255)
);
comment on table pgflow.run_keys is
  'Idempotency keys: the run that a key of an owner has started, of any version of a flow. A key goes with its run.';

create table pgflow.step_states (
  run_id uuid not null, -- of runs
  step_slug text not null,
  flow_slug text not null,
  status text not null default 'created',
  remaining_deps int not null,
  remaining_tasks int,
  initial_tasks int,
  output jsonb,
  error text,
  skip_reason text,
  progress jsonb,
  retries int not null default 0,
  retry_at timestamptz,
  created_at timestamptz not null,
  started_at timestamptz,
  completed_at timestamptz,
  failed_at timestamptz,
  skipped_at timestamptz,
  waits_for text,
  due_at timestamptz,
  primary key (run_id, step_slug),
  constraint status_is_known check (status in ('created', 'started', 'completed', 'failed', 'skipped', 'cancelled')),
  constraint created_is_not_started check (status <> 'created' or started_at is null),
  constraint started_has_its_time check (status not in ('started', 'completed') or started_at is not null),
  constraint started_has_no_deps_left check (status not in ('started', 'completed') or remaining_deps = 0),
  constraint completed_has_its_time check ((status = 'completed') = (completed_at is not null)),
  constraint completed_has_an_output check ((status = 'completed') = (output is not null)),
  constraint failed_has_its_time check ((status = 'failed') = (failed_at is not null)),
  constraint failed_has_an_error check (status <> 'failed' or error is not null),
  constraint skipped_has_its_time check ((status = 'skipped') = (skipped_at is not null)),
  constraint skipped_has_a_reason check ((status = 'skipped') = (skip_reason is not null)),
  constraint remaining_deps_is_not_negative check (remaining_deps >= 0),
  constraint remaining_tasks_is_not_negative check (remaining_tasks between 0 and initial_tasks),
  constraint retries_is_not_negative check (retries >= 0)
) with (fillfactor = 50);
comment on table pgflow.step_states is
  'A step within a run. retries counts failed attempts that were followed by another. waits_for and due_at are those with which a wait or sleep began.';

create table pgflow.step_tasks (
  run_id uuid not null, -- with step_slug: of step_states
  step_slug text not null,
  task_index int not null,
  flow_slug text not null,
  message_id bigint,
  status text not null default 'queued',
  waits_for text,
  due_at timestamptz,
  attempts_count int not null default 0,
  attempts_before int not null default 0,
  input jsonb,
  output jsonb,
  error_message text,
  last_error jsonb,
  queued_at timestamptz not null,
  started_at timestamptz,
  completed_at timestamptz,
  failed_at timestamptz,
  last_worker_id uuid,
  primary key (run_id, step_slug, task_index),
  constraint status_is_known check (status in ('waiting', 'queued', 'started', 'completed', 'failed', 'skipped', 'cancelled')),
  constraint only_waiting_has_no_message_but_a_reason check (
    case
      when status = 'waiting' then message_id is null and waits_for is not null
        and waits_for in ('signal', 'time', 'run', 'slot') and (waits_for <> 'time' or due_at is not null)
      else waits_for is null and due_at is null and (message_id is not null or status not in ('queued', 'started'))
    end
  ),
  constraint started_has_its_time check (status <> 'started' or started_at is not null),
  constraint started_has_an_attempt check (status <> 'started' or attempts_count > 0),
  constraint completed_has_its_time check ((status = 'completed') = (completed_at is not null)),
  constraint failed_has_its_time check ((status = 'failed') = (failed_at is not null)),
  constraint failed_has_an_error check (status <> 'failed' or error_message is not null),
  constraint attempts_before_are_counted check (attempts_before between 0 and attempts_count)
) with (fillfactor = 50);
-- Only waiting tasks are in these. Their conditions name columns that are null for others, not the status: an index whose condition
-- names a column that changes would be written by every update.
create index step_tasks_due on pgflow.step_tasks (due_at) where due_at is not null;
create index step_tasks_waiting on pgflow.step_tasks (flow_slug, queued_at, run_id, step_slug) where waits_for is not null;
comment on table pgflow.step_tasks is
  'A unit of work. Its message in the flow''s queue carries ids only; a task that is waiting has none: a signal, the time, another run or a free slot (waits_for) settles or queues it, at due_at at the latest; a single step''s output is kept in its step state. attempts_count never falls, since it is the fencing token: attempts_before of them do not count any more, because the run was retried, a worker gave them back, or a failure said so. last_error has name, message, code, stack and causes of what a handler threw last.';

create table pgflow.run_events (
  run_id uuid not null, -- of runs
  seq bigint not null,
  type text not null,
  step_slug text,
  at timestamptz not null,
  data jsonb,
  actor_id uuid,
  actor_role text,
  primary key (run_id, seq),
  constraint seq_is_positive check (seq > 0),
  constraint type_is_known check (type in (
    'run:started', 'run:completed', 'run:failed', 'run:cancelled', 'run:retried',
    'step:started', 'step:progress', 'step:retrying', 'step:completed', 'step:failed', 'step:skipped', 'step:cancelled'
  )),
  constraint step_events_name_their_step check ((type like 'step:%') = (step_slug is not null))
);
create index run_events_by_actor on pgflow.run_events (actor_id) where actor_id is not null;
comment on table pgflow.run_events is
  'The log: one row for each transition of a run or step, numbered 1, 2, 3 … within the run, without gaps. data has the columns that it sets; null stands for none, and in step:started for one initial task. actor_id and actor_role say who started, cancelled or retried a run, or settled a task by hand; they are null where a worker did it.';

create table pgflow.run_watches (
  run_id uuid not null references pgflow.runs on delete cascade,
  topic text not null,
  watched_until timestamptz not null,
  constraint run_watches_pkey primary key (run_id, topic)
);
create index run_watches_until on pgflow.run_watches (watched_until);
comment on table pgflow.run_watches is
  'Who follows which run, as the Realtime topic to which its events are sent, and until when: only these runs are broadcast.';

create table pgflow.wait_assignees (
  run_id uuid not null references pgflow.runs on delete cascade,
  step_slug text not null,
  user_id uuid not null,
  flow_slug text not null,
  started_at timestamptz not null,
  is_open boolean not null default true,
  has_answered boolean not null default false,
  constraint wait_assignees_pkey primary key (run_id, step_slug, user_id)
);
create index wait_assignees_by_user on pgflow.wait_assignees (user_id, is_open, started_at, run_id, step_slug);
comment on table pgflow.wait_assignees is
  'Who is asked in a wait, from when it begins: a user, or everybody who is signed in as 00000000-0000-0000-0000-000000000000. is_open says whether it still waits, has_answered who completed it before it began.';

create table pgflow.inbox_watches (
  topic text primary key,
  user_id uuid not null,
  watched_until timestamptz not null
);
create index inbox_watches_by_user on pgflow.inbox_watches (user_id);
comment on table pgflow.inbox_watches is
  'Who follows the list of waits in which they are asked, as the Realtime topic to which news of it are sent, and until when.';

create table pgflow.workers (
  worker_id uuid primary key,
  name text not null,
  flow_slugs text[] not null,
  started_at timestamptz not null,
  last_heartbeat_at timestamptz not null,
  waiting_until timestamptz,
  stopped_at timestamptz
);
create index workers_waiting on pgflow.workers (waiting_until) where waiting_until is not null;
comment on table pgflow.workers is
  'Processes that take tasks, for people to look at; leases do not depend on it. Until waiting_until, a worker is notified of new tasks.';

create table pgflow.schedules (
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
create index schedules_by_due_time on pgflow.schedules (due_at);
create index schedules_by_alias on pgflow.schedules (alias);
comment on table pgflow.schedules is
  'When a flow is started by itself: the newest version of an alias, at the times of a cron expression in a time zone. While paused_at is set, times pass without a run. made_by says who decides about it: the definition of the flow, SQL, or the user who is its owner. next_at is the next nominal time, due_at adds the part of spread seconds that falls to this schedule; last_at is the last nominal time, last_run_id the run that was started last, last_problem why last_at has none.';

-- What belongs to runs and to step states is deleted with them, whoever deletes them.
create function pgflow.tg_runs__after_delete()
returns trigger
language plpgsql
security definer -- whoever may delete a run deletes what belongs to it
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  run_ids uuid[] := array(select o.run_id from old_rows o);
begin
  if cardinality(run_ids) > 0 then
    delete from pgflow.step_states ss where ss.run_id = any (run_ids);
    delete from pgflow.run_events e where e.run_id = any (run_ids);
  end if;
  return null;
end
$$;

create trigger _100_children after delete on pgflow.runs
  referencing old table as old_rows
  for each statement execute function pgflow.tg_runs__after_delete();

create function pgflow.tg_step_states__after_delete()
returns trigger
language plpgsql
security definer -- whoever may delete a step state deletes its tasks
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
begin
  delete from pgflow.step_tasks t using old_rows o where (t.run_id, t.step_slug) = (o.run_id, o.step_slug);
  return null;
end
$$;

create trigger _100_children after delete on pgflow.step_states
  referencing old table as old_rows
  for each statement execute function pgflow.tg_step_states__after_delete();

-- `truncate pgflow.runs cascade` empties the tables that have a foreign key to it; these have none. (They cannot be truncated here
-- where the same statement truncates them.)
create function pgflow.tg_runs__after_truncate()
returns trigger
language plpgsql
security definer -- whoever may truncate runs deletes what belongs to them
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from pgflow.step_states;
  delete from pgflow.run_events;
  return null;
end
$$;

create trigger _100_children_of_all after truncate on pgflow.runs
  for each statement execute function pgflow.tg_runs__after_truncate();

-- Large values are compressed by lz4 where the server has it, in a third of the time that the default takes.
do $$
declare
  value record;
begin
  if not exists (select from pg_settings s where s.name = 'default_toast_compression' and 'lz4' = any (s.enumvals)) then
    return;
  end if;
  for value in
    values ('runs', 'input'), ('runs', 'output'), ('step_states', 'output'), ('step_tasks', 'input'), ('step_tasks', 'output')
  loop
    execute format('alter table pgflow.%I alter column %I set compression lz4', value.column1, value.column2);
  end loop;
end
$$;

-- Chapter 3: the queues. All that the engine asks of pgmq stands here.
--
-- A message carries ids only. Its invisibility is the task's lease: a dead worker's messages reappear by themselves.
-- Nobody waits for a message's lock (`skip locked` everywhere), so that messages take no part in the lock order. What is
-- skipped that way heals: a task that is retried gets another message, and the next claim archives one that is not its
-- task's, or whose task is closed.
--
-- A queue can be lost: dropped, purged, or left out of a backup. A missing one stops no other flow: sending and claiming
-- create it again, and `repair` gives open tasks their messages back.

create type pgflow.step_key as (
  run_id uuid,
  step_slug text
);

create type pgflow.message as (
  queue_name text,
  msg_id bigint,
  read_ct int,
  run_id uuid,
  step_slug text,
  task_index int
);

-- The queue of a new flow: its slug where that is safe, else a shortened and hashed name. pgmq folds case, allows 47
-- characters, and the queue must not be somebody else's.
create function pgflow.queue_name_for(flow_slug text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when flow_slug ~ '^[a-z_][a-z0-9_]{0,46}$'
     and not exists (select from pgmq.list_queues() q where lower(q.queue_name) = flow_slug)
    then flow_slug
    else left(lower(flow_slug), 30) || '_' || left(md5(flow_slug), 16)
  end
$$;

-- Makes the queue of a flow. It is vacuumed whenever something was removed from it: where all is archived it then has no pages,
-- which a claim sees without reading it.
create function pgflow.make_queue(queue_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgmq.create(queue_name);
  execute format('alter table pgmq.%I set (autovacuum_vacuum_threshold = 0)', 'q_' || queue_name);
end
$$;

-- Creates the queue of a flow again, with a message for each of its open tasks. Message numbers go on from the time in
-- microseconds, so that no task has the number of another one's message.
create function pgflow.create_queue(queue_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- One lock for all queues, since several may be missing, and are looked for in any order.
  perform pg_advisory_xact_lock(hashtextextended('pgflow.create_queue', 0));
  if to_regclass(format('pgmq.%I', 'q_' || queue_name)) is null then
    perform pgflow.make_queue(queue_name);
    execute format(
      'alter table pgmq.%I alter column msg_id restart with %s',
      'q_' || queue_name, (extract(epoch from clock_timestamp()) * 1000000)::bigint
    );
    perform pgflow.resend_messages(array(select f.flow_slug from pgflow.flows f where f.queue_name = create_queue.queue_name));
  end if;
end
$$;

-- Sends messages to one queue, visible after `delay` seconds; answers with their numbers, in order. As pgmq.send_batch does,
-- without the functions that it calls.
create function pgflow.send_messages(queue_name text, messages jsonb[], delay int)
returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass(format('pgmq.%I', 'q_' || queue_name)) is null then
    perform pgflow.create_queue(queue_name);
  end if;
  return query execute format(
    'insert into pgmq.%I (vt, message) select $2, m.message from unnest($1) as m (message) returning msg_id', 'q_' || queue_name
  ) using messages, clock_timestamp() + make_interval(secs => delay);
end
$$;

-- Archives messages of one queue; those that somebody holds at the moment are left to the next claim. Which columns a queue has
-- depends on the version of pgmq.
create function pgflow.archive_messages(queue_name text, msg_ids bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  columns text := (
    select string_agg(quote_ident(a.attname), ', ')
    from pg_attribute a
    where a.attrelid = to_regclass(format('pgmq.%I', 'q_' || queue_name)) and a.attnum > 0 and not a.attisdropped
  );
begin
  if columns is null then
    return;
  end if;
  execute format('
    with
      free as (select q.msg_id from pgmq.%1$I q where q.msg_id = any ($1) for update skip locked),
      archived as (delete from pgmq.%1$I q using free where q.msg_id = free.msg_id returning %4$s)
    insert into pgmq.%2$I (%3$s) select %3$s from archived',
    'q_' || queue_name, 'a_' || queue_name, columns, 'q.' || replace(columns, ', ', ', q.')
  ) using msg_ids;
end
$$;

-- Hides messages of one queue, each until its own time, and answers with them; those that somebody holds at the moment
-- are left as they are. Where the time is null, a message is visible again, before those that were sent later.
create function pgflow.hide_messages(queue_name text, msg_ids bigint[], until timestamptz[])
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  hidden bigint[];
begin
  if to_regclass(format('pgmq.%I', 'q_' || queue_name)) is null then
    return '{}';
  end if;
  execute format('
    with wanted as (select * from unnest($1, $2) as w (msg_id, until)),
         free as (select q.msg_id from pgmq.%1$I q join wanted using (msg_id) for update of q skip locked),
         hidden as (
           update pgmq.%1$I q
           set vt = coalesce(wanted.until, q.enqueued_at)
           from wanted join free using (msg_id)
           where q.msg_id = wanted.msg_id
           returning q.msg_id
         )
    select coalesce(array_agg(msg_id), %2$L) from hidden', 'q_' || queue_name, '{}') into hidden using msg_ids, until;
  return hidden;
end
$$;

-- Those of the queues that have visible messages, in the same order; also those that are missing. One statement asks them all.
create function pgflow.due_queues(queues text[])
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  due text[];
begin
  execute (
    select format('select array_remove(array[%s], null)', string_agg(
      case
        when to_regclass(format('pgmq.%I', 'q_' || q.name)) is null then quote_literal(q.name)
        else format('case when exists (select from pgmq.%I where vt <= $1) then %L end', 'q_' || q.name, q.name)
      end, ', ' order by q.ordinality
    ))
    from unnest(queues) with ordinality q (name)
  ) into due using clock_timestamp();
  return due;
exception
  when undefined_table then -- one of them was dropped meanwhile: all are read
    return queues;
end
$$;

-- Reads up to `quantity` visible messages of the flows' queues and hides each for `lease` seconds. The queues are asked in
-- random order, first for an equal share each, then for what is left: a long one does not starve the others. A queue that
-- is missing is created again. Most queues of many are empty: a table without pages costs some microseconds. Of more than
-- a hundred others, each claim asks a hundred, since it locks them.
create function pgflow.read_messages(flow_slugs text[], quantity int, lease int)
returns pgflow.message[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  queues text[];
  share int;
  long_queues text[] := '{}';
  queue text;
  found_here pgflow.message[];
  messages pgflow.message[] := '{}';
begin
  if quantity is null or lease is null or lease < 1 then
    raise exception using
      errcode = 'PT400',
      message = 'quantity and lease must be numbers',
      hint = 'Give quantity as a number of tasks and lease in seconds, at least 1.';
  end if;
  if quantity < 1 then
    return messages;
  end if;
  queues := array(
    select f.queue_name from pgflow.flows f
    where f.flow_slug = any (flow_slugs)
      and pg_relation_size(to_regclass(format('pgmq.%I', 'q_' || f.queue_name))) is distinct from 0
    order by random()
    limit 100
  );
  if cardinality(queues) > 1 then
    queues := pgflow.due_queues(queues);
  end if;
  share := greatest(1, quantity / greatest(1, cardinality(queues)));
  foreach queue in array queues loop
    exit when cardinality(messages) >= quantity;
    if to_regclass(format('pgmq.%I', 'q_' || queue)) is null then
      perform pgflow.create_queue(queue);
    end if;
    found_here := pgflow.read_queue(queue, least(share, quantity - cardinality(messages)), lease);
    messages := messages || found_here;
    if cardinality(found_here) = share then
      long_queues := long_queues || queue;
    end if;
  end loop;
  -- Where there is one queue, its share was all.
  if cardinality(queues) > 1 then
    foreach queue in array long_queues loop
      exit when cardinality(messages) >= quantity;
      messages := messages || pgflow.read_queue(queue, quantity - cardinality(messages), lease);
    end loop;
  end if;
  return messages;
end
$$;

-- The messages of one queue for `read_messages`, in the order in which they became visible. pgmq.read asks by number, and so reads
-- all hidden messages before it finds a visible one; by the index on `vt` they are not in the way.
create function pgflow.read_queue(queue_name text, quantity int, lease int)
returns pgflow.message[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  has_read_time boolean := exists (
    select from pg_attribute a
    where a.attrelid = to_regclass(format('pgmq.%I', 'q_' || queue_name)) and a.attname = 'last_read_at' and not a.attisdropped
  );
  as_of timestamptz := clock_timestamp();
  msg_ids bigint[];
  read_cts int[];
  run_ids text[];
  step_slugs text[];
  task_indexes text[];
  messages pgflow.message[];
begin
  execute format('
    with read as (
      update pgmq.%1$I q
      set vt = $2 + make_interval(secs => $3), read_ct = q.read_ct + 1 %2$s
      where q.msg_id = any (array(
        select due.msg_id from pgmq.%1$I due where due.vt <= $2 order by due.vt limit $1 for update skip locked
      ))
      returning q.msg_id, q.read_ct, q.message ->> ''run_id'' as run_id, q.message ->> ''step_slug'' as step_slug,
                q.message ->> ''task_index'' as task_index
    )
    select array_agg(r.msg_id), array_agg(r.read_ct), array_agg(r.run_id), array_agg(r.step_slug), array_agg(r.task_index)
    from read r', 'q_' || queue_name, case when has_read_time then ', last_read_at = $2' end)
  into msg_ids, read_cts, run_ids, step_slugs, task_indexes
  using quantity, as_of, lease;
  if msg_ids is null then
    return '{}';
  end if;
  begin
    messages := array(
      select row(read_queue.queue_name, m.msg_id, m.read_ct, m.run_id, m.step_slug, m.task_index)::pgflow.message
      from unnest(msg_ids, read_cts, run_ids, step_slugs, task_indexes) as m (msg_id, read_ct, run_id, step_slug, task_index)
      where m.run_id is not null and m.task_index is not null
    );
  exception
    when data_exception then null; -- one of them is not ours
  end;
  if cardinality(messages) = cardinality(msg_ids) then
    return messages;
  end if;
  return pgflow.messages_of_tasks(queue_name, msg_ids, read_cts, run_ids, step_slugs, task_indexes);
end
$$;

-- What `read_queue` has read from a queue in which others put messages, too: theirs are archived.
create function pgflow.messages_of_tasks(
  queue_name text, msg_ids bigint[], read_cts int[], run_ids text[], step_slugs text[], task_indexes text[]
)
returns pgflow.message[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  ours pgflow.message[];
  others bigint[];
begin
  select array_agg(
           row(messages_of_tasks.queue_name, m.msg_id, m.read_ct, m.run_id, m.step_slug, m.task_index)::pgflow.message
         ) filter (where is_ours.so),
         array_agg(m.msg_id) filter (where is_ours.so is not true)
  into ours, others
  from unnest(msg_ids, read_cts, run_ids, step_slugs, task_indexes) as m (msg_id, read_ct, run_id, step_slug, task_index)
  cross join lateral (
    select pgflow.is_readable(m.run_id, 'uuid') and pgflow.is_readable(m.task_index, 'int')
    offset 0 -- so that it is evaluated once
  ) as is_ours (so);
  perform pgflow.archive_messages(queue_name, others);
  return coalesce(ours, '{}');
end
$$;

-- Creates queues that are missing, and gives every open task that has lost its message another one. Safe at any time, beside
-- workers that claim and settle: whoever has lost nothing notices nothing.
--   select * from pgflow.repair();
create function pgflow.repair(out queues bigint, out messages bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  missing text[] := array(
    select f.queue_name from pgflow.flows f
    where to_regclass(format('pgmq.%I', 'q_' || f.queue_name)) is null
       or to_regclass(format('pgmq.%I', 'a_' || f.queue_name)) is null
  );
begin
  queues := cardinality(missing);
  perform pgmq.create(archive) from unnest(missing) archive
  where to_regclass(format('pgmq.%I', 'q_' || archive)) is not null;
  perform pgflow.create_queue(queue) from unnest(missing) queue;
  messages := pgflow.resend_messages(array(select f.flow_slug from pgflow.flows f));
end
$$;
comment on function pgflow.repair is 'Creates queues that are missing, and sends the messages that open tasks have lost again.';

-- Sends the messages that open tasks of the flows have lost again, and answers how many. A task that is being claimed or
-- settled at the moment is left alone. A new message is visible when the old one would have been: one of a task that is
-- claimed when its lease is over, at the latest, unless its worker extends it.
create function pgflow.resend_messages(flow_slugs text[])
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  open record;
  run_ids uuid[];
  sent bigint := 0;
begin
  for open in
    select f.queue_name, array_agg(t.run_id) as run_ids, array_agg(t.step_slug) as step_slugs,
           array_agg(t.task_index) as task_indexes
    from pgflow.step_tasks t
    join pgflow.flows f using (flow_slug)
    where t.flow_slug = any (resend_messages.flow_slugs) and t.status in ('queued', 'started')
    group by f.queue_name
  loop
    run_ids := pgflow.resend_to_queue(open.queue_name, open.run_ids, open.step_slugs, open.task_indexes);
    sent := sent + cardinality(run_ids);
    perform pgflow.notify_workers(run_ids);
  end loop;
  return sent;
end
$$;

-- The messages of one queue for `resend_messages`; answers with the run of each. One statement sees tasks and messages as
-- they are at one time; a task that has got another message meanwhile is left out by the lock.
create function pgflow.resend_to_queue(queue_name text, run_ids uuid[], step_slugs text[], task_indexes int[])
returns uuid[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  resent uuid[];
begin
  execute format($resend$
    with
      lost as materialized (
        select t.run_id, t.step_slug, t.task_index, t.message_id
        from unnest($1, $2, $3) as open (run_id, step_slug, task_index)
        join pgflow.step_tasks t using (run_id, step_slug, task_index)
        where t.status in ('queued', 'started') and not exists (
          select from pgmq.%I q
          where q.msg_id = t.message_id
            and (q.message ->> 'run_id', q.message ->> 'step_slug', q.message ->> 'task_index')
              = (t.run_id::text, t.step_slug, t.task_index::text)
        )
      ),
      task as materialized (
        select t.*
        from lost l
        join pgflow.step_tasks t using (run_id, step_slug, task_index)
        where t.status in ('queued', 'started') and t.message_id is not distinct from l.message_id
        order by t.run_id, t.step_slug, t.task_index
        for no key update of t skip locked
      ),
      batch as (
        select due.delay,
               array_agg(t.run_id order by t.run_id, t.step_slug, t.task_index) as run_ids,
               array_agg(t.step_slug order by t.run_id, t.step_slug, t.task_index) as step_slugs,
               array_agg(t.task_index order by t.run_id, t.step_slug, t.task_index) as task_indexes,
               array_agg(jsonb_build_object(
                 'flow_slug', t.flow_slug, 'run_id', t.run_id, 'step_slug', t.step_slug, 'task_index', t.task_index
               ) order by t.run_id, t.step_slug, t.task_index) as messages
        from task t
        join pgflow.step_states ss using (run_id, step_slug)
        join pgflow.steps s on s.flow_slug = t.flow_slug and s.step_slug = t.step_slug
        cross join lateral (
          select case
            when t.status = 'started' and exists (select from pgflow.workers w where w.worker_id = t.last_worker_id)
            then clock_timestamp() + interval '1 minute'
            when t.status = 'started' then t.started_at + make_interval(secs => 2.0 + (
              select o.timeout from pgflow.step_options o where o.flow_slug = t.flow_slug and o.step_slug = t.step_slug
            ))
            when t.attempts_count > t.attempts_before then ss.retry_at
            else t.queued_at + make_interval(secs => coalesce(s.opt_start_delay, 0))
          end
        ) as visible (at)
        cross join lateral (
          select greatest(0, least(2147483647, ceil(extract(epoch from visible.at - clock_timestamp()))))::int
        ) as due (delay)
        group by due.delay
      ),
      sent as materialized (
        select m.run_id, m.step_slug, m.task_index, m.msg_id
        from batch b
        cross join lateral rows from (
          unnest(b.run_ids), unnest(b.step_slugs), unnest(b.task_indexes), pgmq.send_batch(%L, b.messages, b.delay)
        ) as m (run_id, step_slug, task_index, msg_id)
      ),
      resent as (
        update pgflow.step_tasks t
        set message_id = s.msg_id
        from sent s
        where (t.run_id, t.step_slug, t.task_index) = (s.run_id, s.step_slug, s.task_index)
        returning t.run_id
      )
    select coalesce(array_agg(r.run_id), '{}') from resent r
  $resend$, 'q_' || queue_name, queue_name)
  into resent
  using run_ids, step_slugs, task_indexes;
  return resent;
end
$$;

-- Chapter 4: definitions. Steps are added in topological order, which is what forbids cycles.
-- A repeated call changes nothing; a different shape for an existing slug is an error that says what differs.
--
-- Who defines waits for nobody without a bound: after three seconds an error names whom it waited for.

-- Lets one transaction at a time define the versions of a flow. Workers that start together define the same flow.
create function pgflow.lock_definition(alias text)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pg_advisory_xact_lock(hashtextextended('pgflow.flow:' || lock_definition.alias, 0))
$$;

-- Keeps the shape of a flow for this transaction alone, to add a step or to delete: waits until no transaction that has started
-- the flow is open, for three seconds at most. It asks again and again, since starts would queue behind a lock that waits.
create function pgflow.lock_shape(flow_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  patience timestamptz := clock_timestamp() + interval '3 seconds';
begin
  while not pg_try_advisory_xact_lock(hashtextextended('pgflow.shape:' || lock_shape.flow_slug, 0)) loop
    if clock_timestamp() > patience then
      perform pgflow.raise_blocked(lock_shape.flow_slug, lock_shape.flow_slug);
    end if;
    perform pg_sleep(0.01);
  end loop;
end
$$;

-- Raises PT409 where a definition has waited too long, and names the transactions that may be the reason: the oldest that
-- use the flows, have started this one, or define it.
create function pgflow.raise_blocked(flow_slug text, alias text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  keys bigint[] := array[
    hashtextextended('pgflow.flow:' || raise_blocked.alias, 0), hashtextextended('pgflow.shape:' || raise_blocked.flow_slug, 0)
  ];
  blockers text := (
    select string_agg(format(
             'pid %s (%s, %s), open for %s', b.pid, coalesce(nullif(a.application_name, ''), 'no application name'),
             coalesce(a.state, 'unknown'), date_trunc('second', clock_timestamp() - a.xact_start)
           ), '; ' order by a.xact_start)
    from (
      select distinct l.pid from pg_locks l
      where l.granted and l.pid <> pg_backend_pid() and (
        l.relation in ('pgflow.flows'::regclass, 'pgflow.steps'::regclass, 'pgflow.schedules'::regclass) and l.mode <> 'AccessShareLock'
        or l.locktype = 'advisory' and l.objsubid = 1 and (l.classid::bigint << 32 | l.objid::bigint) = any (keys)
      )
      order by l.pid
      limit 10
    ) b
    left join pg_stat_activity a on a.pid = b.pid
  );
begin
  raise exception using
    errcode = 'PT409',
    message = format('flow "%s" cannot be defined now: another transaction holds it', raise_blocked.flow_slug),
    detail = format('transactions that are open: %s', coalesce(blockers, 'none any more')),
    hint = 'Try again. If a transaction was forgotten, end it: select pg_terminate_backend(<pid>).';
end
$$;

-- Defines a flow, and its queue.
--   select pgflow.create_flow('analyze_document', max_attempts => 5, start_role => 'authenticated');
create function pgflow.create_flow(
  flow_slug text,
  max_attempts int default 3,
  base_delay numeric default 5,
  timeout int default 60,
  start_role text default 'service_role',
  broadcast text default 'watched'
)
returns pgflow.flows
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
  flow pgflow.flows;
begin
  perform pgflow.assert_valid_slug(create_flow.flow_slug);
  select f.* into flow from pgflow.flows f where f.flow_slug = create_flow.flow_slug;
  if found then
    return flow;
  end if;
  perform pgflow.lock_definition(create_flow.flow_slug);
  select f.* into flow from pgflow.flows f where f.flow_slug = create_flow.flow_slug;
  if not found then
    insert into pgflow.flows (flow_slug, alias, queue_name, opt_max_attempts, opt_base_delay, opt_timeout, start_role, broadcast)
    values (
      create_flow.flow_slug, create_flow.flow_slug, pgflow.queue_name_for(create_flow.flow_slug),
      create_flow.max_attempts, create_flow.base_delay, create_flow.timeout, create_flow.start_role, create_flow.broadcast
    )
    returning * into flow;
    perform pgflow.make_queue(flow.queue_name);
  end if;
  return flow;
exception
  when lock_not_available then
    perform pgflow.raise_blocked(create_flow.flow_slug, create_flow.flow_slug);
  when check_violation or not_null_violation then
    raise exception using
      errcode = 'PT400',
      message = format('flow "%s" has an invalid option', create_flow.flow_slug),
      detail = sqlerrm,
      hint = 'max_attempts is at least 0, timeout 1 second to a year, base_delay 0 seconds to a year, start_role is service_role, authenticated or anon, broadcast is watched, always or never.';
end
$$;
comment on function pgflow.create_flow is 'Defines a flow with the defaults of its steps, in seconds; idempotent.';

-- Adds a step that waits for deps, all of them added before it.
--   select pgflow.add_step('analyze_document', 'report', deps_slugs => array['headings', 'links']);
--   select pgflow.add_step('analyze_document', 'pages', array['toc'], step_type => 'map', map_path => 'urls');
-- A map has a task for each item of an array: of its only dep's output (of the run's input where it has none), or of what
-- map_source names, at map_path (`a.b`) inside it. A step starts if its input {"run": …, "<dep>": …} contains run_if and
-- does not contain run_unless; when_unmet and when_exhausted say what becomes of it otherwise.
--   select pgflow.add_step('publish', 'approval', array['draft'], step_type => 'wait', completed_by => 'assignees',
--     assignees_path => 'draft.reviewers', timeout => 172800, when_timed_out => 'skip');
--   select pgflow.add_step('publish', 'pause', array['approval'], step_type => 'sleep', sleep_for => 3600);
-- A wait is completed by complete_wait, or after `timeout` seconds as when_timed_out says; paths are `run.a.b` or `<dep>.a.b`.
create function pgflow.add_step(
  flow_slug text,
  step_slug text,
  deps_slugs text[],
  max_attempts int default null,
  base_delay numeric default null,
  timeout int default null,
  start_delay int default null,
  step_type text default 'single',
  map_source text default null,
  map_path text default null,
  run_if jsonb default null,
  run_unless jsonb default null,
  when_unmet text default 'skip-cascade',
  when_exhausted text default 'fail',
  completed_by text default null,
  assignees_path text default null,
  not_by_owner boolean default null,
  when_timed_out text default null,
  timed_out_output jsonb default null,
  webhook text default null,
  sleep_for int default null,
  until_path text default null
)
returns pgflow.steps
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
#variable_conflict use_column
declare
  wanted pgflow.steps;
  wanted_deps text[] := (select coalesce(array_agg(dep order by dep), '{}') from unnest(add_step.deps_slugs) dep);
  step pgflow.steps;
begin
  perform pgflow.assert_valid_slug(add_step.step_slug);
  -- The shape cannot change under a run that is being started.
  perform pgflow.lock_shape(add_step.flow_slug);
  perform from pgflow.flows f where f.flow_slug = add_step.flow_slug for update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('flow "%s" does not exist', add_step.flow_slug),
      hint = 'Define it first: select pgflow.create_flow(…).';
  end if;

  wanted.flow_slug := add_step.flow_slug;
  wanted.step_slug := add_step.step_slug;
  wanted.step_type := add_step.step_type;
  wanted.map_source := case
    when add_step.step_type <> 'map' then add_step.map_source
    else coalesce(add_step.map_source, case cardinality(wanted_deps) when 0 then 'run' when 1 then wanted_deps[1] end)
  end;
  wanted.map_path := add_step.map_path;
  wanted.run_if := add_step.run_if;
  wanted.run_unless := add_step.run_unless;
  wanted.when_unmet := add_step.when_unmet;
  wanted.when_exhausted := add_step.when_exhausted;
  wanted.completed_by := coalesce(add_step.completed_by, case add_step.step_type when 'wait' then 'service_role' end);
  wanted.assignees_path := add_step.assignees_path;
  wanted.not_by_owner := coalesce(add_step.not_by_owner, case add_step.step_type when 'wait' then false end);
  wanted.when_timed_out := coalesce(add_step.when_timed_out, case add_step.step_type when 'wait' then 'fail' end);
  wanted.timed_out_output := add_step.timed_out_output;
  wanted.webhook := add_step.webhook;
  wanted.until_path := add_step.until_path;

  select s.* into step from pgflow.steps s
  where s.flow_slug = add_step.flow_slug and s.step_slug = add_step.step_slug;
  if found then
    perform pgflow.assert_same_step(step, wanted, wanted_deps);
    return step;
  end if;
  perform pgflow.assert_new_step(wanted, wanted_deps);

  insert into pgflow.steps (
    flow_slug, step_slug, step_index, step_type, deps_count,
    opt_max_attempts, opt_base_delay, opt_timeout, opt_start_delay,
    run_if, run_unless, when_unmet, when_exhausted, map_source, map_path,
    completed_by, assignees_path, not_by_owner, when_timed_out, timed_out_output, webhook, until_path, opt_sleep_for
  )
  select wanted.flow_slug, wanted.step_slug, count(*), wanted.step_type, cardinality(wanted_deps),
         add_step.max_attempts, add_step.base_delay, add_step.timeout, add_step.start_delay,
         wanted.run_if, wanted.run_unless, wanted.when_unmet, wanted.when_exhausted, wanted.map_source, wanted.map_path,
         wanted.completed_by, wanted.assignees_path, wanted.not_by_owner, wanted.when_timed_out, wanted.timed_out_output,
         wanted.webhook, wanted.until_path, add_step.sleep_for
  from pgflow.steps s where s.flow_slug = wanted.flow_slug
  returning * into step;
  insert into pgflow.deps (flow_slug, dep_slug, step_slug)
  select wanted.flow_slug, dep, wanted.step_slug from unnest(wanted_deps) dep;
  update pgflow.flows f set shape_hash = null where f.flow_slug = wanted.flow_slug and f.shape_hash is not null;
  return step;
exception
  when lock_not_available then
    perform pgflow.raise_blocked(add_step.flow_slug, add_step.flow_slug);
  when check_violation or not_null_violation then
    raise exception using
      errcode = 'PT400',
      message = format('step "%s" of flow "%s" has an invalid option', add_step.step_slug, add_step.flow_slug),
      detail = sqlerrm,
      hint = 'max_attempts is at least 0, timeout 1 second to a year, base_delay and start_delay 0 seconds to a year; step_type is single, map, wait or sleep; when_unmet and when_exhausted are fail, skip or skip-cascade. completed_by (service_role, owner, authenticated, or assignees with an assignees_path), not_by_owner, when_timed_out (fail, skip, skip-cascade or complete, with timed_out_output) and webhook (plain, stripe, github, slack or standard) are for waits. A sleep has either sleep_for, 1 second to a year, or until_path. Neither has max_attempts, base_delay or start_delay.';
end
$$;
comment on function pgflow.add_step(
  text, text, text[], int, numeric, int, int, text, text, text, jsonb, jsonb, text, text,
  text, text, boolean, text, jsonb, text, int, text
) is 'Adds a step that waits for deps_slugs; options that are null are the flow''s; idempotent.';

-- Adds a root step.
--   select pgflow.add_step('analyze_document', 'read_file');
create function pgflow.add_step(
  flow_slug text,
  step_slug text,
  max_attempts int default null,
  base_delay numeric default null,
  timeout int default null,
  start_delay int default null,
  step_type text default 'single',
  map_source text default null,
  map_path text default null,
  run_if jsonb default null,
  run_unless jsonb default null,
  when_unmet text default 'skip-cascade',
  when_exhausted text default 'fail',
  completed_by text default null,
  assignees_path text default null,
  not_by_owner boolean default null,
  when_timed_out text default null,
  timed_out_output jsonb default null,
  webhook text default null,
  sleep_for int default null,
  until_path text default null
)
returns pgflow.steps
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.add_step(
    flow_slug, step_slug, '{}'::text[], max_attempts, base_delay, timeout, start_delay,
    step_type, map_source, map_path, run_if, run_unless, when_unmet, when_exhausted,
    completed_by, assignees_path, not_by_owner, when_timed_out, timed_out_output, webhook, sleep_for, until_path
  )
$$;
comment on function pgflow.add_step(
  text, text, int, numeric, int, int, text, text, text, jsonb, jsonb, text, text,
  text, text, boolean, text, jsonb, text, int, text
) is 'Adds a step that waits for nothing; idempotent.';

-- Raises PT409 where a step exists in another shape, and says what differs.
create function pgflow.assert_same_step(existing pgflow.steps, wanted pgflow.steps, wanted_deps text[])
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  difference text := (
    select format('%s is %s, not %s', s.part, coalesce(s.found, 'absent'), coalesce(s.wanted, 'absent'))
    from (
      values
        ('deps', (
          select array_agg(d.dep_slug order by d.dep_slug)::text from pgflow.deps d
          where d.flow_slug = existing.flow_slug and d.step_slug = existing.step_slug
        ), nullif(wanted_deps, '{}')::text),
        ('step_type', existing.step_type, wanted.step_type),
        ('map_source', existing.map_source, wanted.map_source),
        ('map_path', existing.map_path, wanted.map_path),
        ('run_if', existing.run_if::text, wanted.run_if::text),
        ('run_unless', existing.run_unless::text, wanted.run_unless::text),
        ('when_unmet', existing.when_unmet, wanted.when_unmet),
        ('when_exhausted', existing.when_exhausted, wanted.when_exhausted),
        ('completed_by', existing.completed_by, wanted.completed_by),
        ('assignees_path', existing.assignees_path, wanted.assignees_path),
        ('not_by_owner', existing.not_by_owner::text, wanted.not_by_owner::text),
        ('when_timed_out', existing.when_timed_out, wanted.when_timed_out),
        ('timed_out_output', existing.timed_out_output::text, wanted.timed_out_output::text),
        ('webhook', existing.webhook, wanted.webhook),
        ('until_path', existing.until_path, wanted.until_path)
    ) as s (part, found, wanted)
    where s.found is distinct from s.wanted
    limit 1
  );
begin
  if difference is not null then
    raise exception using
      errcode = 'PT409',
      message = format('the shape of flow "%s" differs: step "%s": %s', existing.flow_slug, existing.step_slug, difference),
      hint = 'A flow''s shape is immutable: register the changed flow as a new version, or under a new slug.';
  end if;
end
$$;

-- Raises where a step cannot be added to its flow.
create function pgflow.assert_new_step(wanted pgflow.steps, wanted_deps text[])
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  problem text := case
    when array_position(wanted_deps, null) is not null then 'has a dep that is null'
    when cardinality(wanted_deps) <> (select count(distinct dep) from unnest(wanted_deps) dep) then 'names a dep twice'
    when wanted.step_slug = any (wanted_deps) then 'depends on itself'
    when exists (
      select from unnest(wanted_deps) dep
      where not exists (select from pgflow.steps s where s.flow_slug = wanted.flow_slug and s.step_slug = dep)
    ) then (
      select format('depends on "%s", which is not a step of the flow', dep) from unnest(wanted_deps) dep
      where not exists (select from pgflow.steps s where s.flow_slug = wanted.flow_slug and s.step_slug = dep)
      limit 1
    )
    when wanted.step_type = 'map' and wanted.map_source is null then 'does not say which dep it maps'
    when wanted.step_type = 'map' and wanted.map_source <> 'run' and wanted.map_source <> all (wanted_deps)
      then format('maps "%s", which is not one of its deps', wanted.map_source)
    when wanted.map_path !~ '^[^.]+([.][^.]+)*$' then format('has the path "%s", which is not of the form a.b', wanted.map_path)
    when coalesce(wanted.assignees_path, wanted.until_path) !~ '^[^.]+([.][^.]+)*$'
      then format('has the path "%s", which is not of the form a.b', coalesce(wanted.assignees_path, wanted.until_path))
    when split_part(coalesce(wanted.assignees_path, wanted.until_path), '.', 1) <> all (array_prepend('run', wanted_deps)) then format(
      'has the path "%s", which begins neither with run nor with one of its deps',
      coalesce(wanted.assignees_path, wanted.until_path)
    )
  end;
begin
  if problem is not null then
    raise exception using
      errcode = 'PT400',
      message = format('step "%s" of flow "%s" %s', wanted.step_slug, wanted.flow_slug, problem),
      hint = 'Add steps in topological order, each dep once and before the steps that wait for it; map_source is "run" or a dep.';
  end if;
  if exists (select from pgflow.runs r where r.flow_slug = wanted.flow_slug) then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" has runs: step "%s" cannot be added to it', wanted.flow_slug, wanted.step_slug),
      hint = 'A flow''s shape is immutable: register the changed flow as a new version, or under a new slug.';
  end if;
end
$$;

-- Chapter 5: a definition: a whole flow as one JSON value. It has the arguments of create_flow, and under `steps`, in
-- topological order, those of add_step. What it leaves out has its default.
--
-- Its shape is what a run depends on: steps, deps, maps, conditions, schemas. All the rest are options.

create type pgflow.flow_definition as (
  flow_slug text,
  alias text,
  version int,
  max_attempts int,
  base_delay numeric,
  timeout int,
  start_role text,
  broadcast text,
  input_schema jsonb,
  output_schema jsonb,
  steps jsonb,
  schedulable boolean,
  schedules jsonb
);

create type pgflow.step_definition as (
  step_slug text,
  deps_slugs text[],
  step_type text,
  map_source text,
  map_path text,
  run_if jsonb,
  run_unless jsonb,
  when_unmet text,
  when_exhausted text,
  max_attempts int,
  base_delay numeric,
  timeout int,
  start_delay int,
  input_schema jsonb,
  output_schema jsonb,
  completed_by text,
  assignees_path text,
  not_by_owner boolean,
  when_timed_out text,
  timed_out_output jsonb,
  webhook text,
  sleep_for int,
  until_path text
);

-- An object without those of its keys whose value is null.
create function pgflow.without_nulls(object jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(key, value) from jsonb_each(object) where value <> 'null'
$$;

-- The definition of a flow as it is in the database: what register_flow would make it from.
--   select jsonb_pretty(pgflow.flow_definition('analyze_document'));
create function pgflow.flow_definition(flow_slug text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.without_nulls(to_jsonb(row(
    f.flow_slug, f.alias, f.version, f.opt_max_attempts, f.opt_base_delay, f.opt_timeout, f.start_role, f.broadcast,
    f.input_schema, f.output_schema, (
      select coalesce(jsonb_agg(pgflow.without_nulls(to_jsonb(row(
        s.step_slug, array(
          select d.dep_slug from pgflow.deps d
          where d.flow_slug = s.flow_slug and d.step_slug = s.step_slug
          order by d.dep_slug collate "C"
        ),
        s.step_type, s.map_source, s.map_path, s.run_if, s.run_unless, s.when_unmet, s.when_exhausted,
        s.opt_max_attempts, s.opt_base_delay, s.opt_timeout, s.opt_start_delay, s.input_schema, s.output_schema,
        s.completed_by, s.assignees_path, s.not_by_owner, s.when_timed_out, s.timed_out_output, s.webhook, s.opt_sleep_for,
        s.until_path
      )::pgflow.step_definition)) order by s.step_index), '[]')
      from pgflow.steps s where s.flow_slug = f.flow_slug
    ), f.schedulable, (
      select jsonb_agg(jsonb_build_object(
        'schedule_slug', s.schedule_slug, 'cron', s.cron, 'time_zone', s.time_zone, 'input', s.input, 'overlap', s.overlap,
        'catch_up', s.catch_up, 'catch_up_window', s.catch_up_window, 'spread', s.spread
      ) order by s.schedule_slug collate "C")
      from pgflow.schedules s
      where s.alias = f.alias and s.made_by = 'flow' and not exists (
        select from pgflow.flow_aliases a where a.alias = f.alias and a.flow_slug <> f.flow_slug
      )
    )
  )::pgflow.flow_definition))
  from pgflow.flows f
  where f.flow_slug = flow_definition.flow_slug
$$;
comment on function pgflow.flow_definition is 'The definition of a flow, with every default written out.';

-- The shape of a definition in its canonical form: equal shapes are equal values. Options are no part of it.
create function pgflow.flow_shape(definition jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.without_nulls(jsonb_build_object(
    'flow_slug', definition -> 'flow_slug',
    'input_schema', nullif(definition -> 'input_schema', 'null'),
    'output_schema', nullif(definition -> 'output_schema', 'null'),
    'steps', (
      select jsonb_agg(pgflow.without_nulls(jsonb_build_object(
        'step_slug', s.step_slug,
        'deps_slugs', d.deps,
        'step_type', coalesce(s.step_type, 'single'),
        'map_source', case
          when s.step_type = 'map'
          then coalesce(s.map_source, case cardinality(d.deps) when 0 then 'run' when 1 then d.deps[1] end)
          else s.map_source
        end,
        'map_path', s.map_path,
        'run_if', s.run_if,
        'run_unless', s.run_unless,
        'when_unmet', coalesce(s.when_unmet, 'skip-cascade'),
        'when_exhausted', coalesce(s.when_exhausted, 'fail'),
        'input_schema', s.input_schema,
        'output_schema', s.output_schema,
        'completed_by', coalesce(s.completed_by, case s.step_type when 'wait' then 'service_role' end),
        'assignees_path', s.assignees_path,
        'not_by_owner', coalesce(s.not_by_owner, case s.step_type when 'wait' then false end),
        'when_timed_out', coalesce(s.when_timed_out, case s.step_type when 'wait' then 'fail' end),
        'timed_out_output', s.timed_out_output,
        'webhook', s.webhook,
        'until_path', s.until_path
      )) order by s.step_slug collate "C")
      from jsonb_populate_recordset(null::pgflow.step_definition, definition -> 'steps') s
      cross join lateral (
        select array(select dep from unnest(s.deps_slugs) dep order by dep collate "C") as deps
      ) d
    )
  ))
$$;

-- What has changed from one shape to another, in words; null where nothing has. A schema that only one of them has is no
-- change.
--   select pgflow.shape_changes(pgflow.flow_shape(pgflow.flow_definition('greet')), pgflow.flow_shape('{…}'));
create function pgflow.shape_changes(before jsonb, after jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with
    step as (
      select coalesce(b ->> 'step_slug', a ->> 'step_slug') as slug, b as before, a as after
      from jsonb_array_elements(shape_changes.before -> 'steps') b
      full join jsonb_array_elements(shape_changes.after -> 'steps') a on a ->> 'step_slug' = b ->> 'step_slug'
    ),
    change (slug, nth, words) as (
      select '', 0, format('the %s schema is another', k.kind)
      from (values ('input'), ('output')) k (kind)
      where shape_changes.before -> (kind || '_schema') <> shape_changes.after -> (kind || '_schema')
      union all
      select slug, 1, format('step "%s" is %s', slug, case when before is null then 'new' else 'gone' end)
      from step where before is null or after is null
      union all
      select slug, 2, format('step "%s" %s "%s"', slug, d.verb, d.dep)
      from step
      cross join lateral (
        select 'now depends on', dep from jsonb_array_elements_text(after -> 'deps_slugs') dep where not before -> 'deps_slugs' ? dep
        union all
        select 'no longer depends on', dep from jsonb_array_elements_text(before -> 'deps_slugs') dep where not after -> 'deps_slugs' ? dep
      ) d (verb, dep)
      where before is not null and after is not null
      union all
      select slug, 3, format('%s of step "%s" is %s, not %s', key, slug, coalesce(after ->> key, 'absent'), coalesce(before ->> key, 'absent'))
      from step
      cross join unnest(array[
        'step_type', 'map_source', 'map_path', 'run_if', 'run_unless', 'when_unmet', 'when_exhausted', 'completed_by',
        'assignees_path', 'not_by_owner', 'when_timed_out', 'timed_out_output', 'webhook', 'until_path'
      ]) key
      where before is not null and after is not null and before -> key is distinct from after -> key
      union all
      select slug, 4, format('the %s schema of step "%s" is another', k.kind, slug)
      from step
      cross join (values ('input'), ('output')) k (kind)
      where before -> (kind || '_schema') <> after -> (kind || '_schema')
    )
  select string_agg(words, '; ' order by slug collate "C", nth, words collate "C") from change
$$;

-- The first key of an object that is not among the known ones, or whose value is not of its kind; null where all are.
create function pgflow.key_problem(object jsonb, kinds jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
      when kind is null
      then format('it has the unknown key "%s": the keys are %s', key, (select string_agg(k, ', ') from jsonb_object_keys(kinds) k))
      else format('%s is %s, not %s', key, left(value::text, 100), kind)
    end
  from jsonb_each(object)
  cross join lateral (select kinds ->> key, jsonb_typeof(value)) k (kind, type)
  where kind is null or not coalesce(value = 'null' or case kind
      when 'a text' then type = 'string'
      when 'a number' then type = 'number'
      when 'a whole number'
      then case when type = 'number' then value::numeric % 1 = 0 and abs(value::numeric) <= 2147483647 end
      when 'an array of texts'
      then type = 'array' and not jsonb_path_exists(value, 'strict $[*] ? (@.type() != "string")')
      when 'an array of objects'
      then type = 'array' and not jsonb_path_exists(value, 'strict $[*] ? (@.type() != "object")')
      when 'an object' then type = 'object'
      when 'true or false' then type = 'boolean'
      when 'any JSON' then true
      when 'a JSON Schema' then type in ('object', 'boolean')
    end, false)
  order by key collate "C"
  limit 1
$$;

-- What is wrong with the steps of a definition, the first thing only; null where nothing is.
create function pgflow.steps_problem(steps jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with
    step as (
      select n, value, value ->> 'step_slug' as slug from jsonb_array_elements(steps) with ordinality as s (value, n)
    ),
    key_problem as (
      select n, pgflow.key_problem(value, '{
        "step_slug": "a text", "deps_slugs": "an array of texts", "step_type": "a text", "map_source": "a text",
        "map_path": "a text", "run_if": "an object", "run_unless": "an object", "when_unmet": "a text",
        "when_exhausted": "a text", "max_attempts": "a whole number", "base_delay": "a number",
        "timeout": "a whole number", "start_delay": "a whole number", "input_schema": "a JSON Schema",
        "output_schema": "a JSON Schema", "completed_by": "a text", "assignees_path": "a text",
        "not_by_owner": "true or false", "when_timed_out": "a text", "timed_out_output": "any JSON", "webhook": "a text",
        "sleep_for": "a whole number", "until_path": "a text"
      }') as words
      from step
    ),
    dep as (
      select step.n, dep.slug, count(*) as times, (select min(d.n) from step d where d.slug = dep.slug) as at
      from step
      cross join jsonb_array_elements_text(case when jsonb_typeof(value -> 'deps_slugs') = 'array' then value -> 'deps_slugs' end) dep (slug)
      group by step.n, dep.slug
    ),
    problem as (
      select n, 0 as nth, words from key_problem where words is not null
      union all
      select n, 1, 'step_slug is missing' from step where slug is null
      union all
      select n, 2, 'an earlier step has the same slug'
      from step where exists (select from step other where other.slug = step.slug and other.n < step.n)
      union all
      select n, 3, case
          when at is null then format('it depends on "%s", which is not a step of the flow', slug)
          when at = n then 'it depends on itself'
          when at > n then format('it depends on "%s", which comes after it: put each step after its deps; a cycle has no such order', slug)
          else format('it names its dep "%s" twice', slug)
        end
      from dep where at is null or at >= n or times > 1
    )
  select format('step %s: %s', coalesce('"' || step.slug || '"', step.n::text), problem.words)
  from problem join step using (n)
  order by n, nth, words collate "C"
  limit 1
$$;

-- What is wrong with the schedules of a definition, the first thing only; null where nothing is.
create function pgflow.schedules_problem(schedules jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with
    schedule as (
      select n, value, value ->> 'schedule_slug' as slug
      from jsonb_array_elements(nullif(schedules, 'null')) with ordinality as s (value, n)
    ),
    problem as (
      select n, slug, coalesce(
        pgflow.key_problem(value, '{
          "schedule_slug": "a text", "cron": "a text", "time_zone": "a text", "input": "any JSON", "overlap": "a text",
          "catch_up": "a text", "catch_up_window": "a whole number", "spread": "a whole number"
        }'),
        case
          when slug is null then 'schedule_slug is missing'
          when value ->> 'cron' is null then 'cron is missing'
          when exists (select from schedule other where other.slug = schedule.slug and other.n < schedule.n)
          then 'an earlier schedule has the same slug'
        end
      ) as words
      from schedule
    )
  select format('schedule %s: %s', coalesce('"' || slug || '"', n::text), words)
  from problem
  where words is not null
  order by n
  limit 1
$$;

-- Raises PT400 where a value cannot define a flow, and says where and why.
create function pgflow.assert_valid_definition(definition jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  problem text := case
    when jsonb_typeof(definition) is distinct from 'object' then 'it is not an object'
    else coalesce(
      pgflow.key_problem(definition, '{
        "flow_slug": "a text", "alias": "a text", "version": "a whole number", "max_attempts": "a whole number",
        "base_delay": "a number", "timeout": "a whole number", "start_role": "a text", "broadcast": "a text",
        "input_schema": "a JSON Schema", "output_schema": "a JSON Schema", "steps": "an array of objects",
        "schedulable": "true or false", "schedules": "an array of objects"
      }'),
      case
        when jsonb_typeof(definition -> 'flow_slug') is distinct from 'string' then 'flow_slug is missing'
        when jsonb_array_length(coalesce(nullif(definition -> 'steps', 'null'), '[]')) = 0 then 'it has no steps'
      end,
      pgflow.steps_problem(definition -> 'steps'),
      pgflow.schedules_problem(definition -> 'schedules')
    )
  end;
begin
  if problem is not null then
    raise exception using
      errcode = 'PT400',
      message = format('the definition%s is invalid: %s', ' of flow "' || (definition ->> 'flow_slug') || '"', problem),
      hint = 'A definition has the arguments of create_flow, under steps those of add_step, each step after its deps, and under schedules those of schedule.';
  end if;
  perform pgflow.assert_valid_slug(definition ->> 'flow_slug');
  perform pgflow.assert_valid_slug(step ->> 'step_slug') from jsonb_array_elements(definition -> 'steps') step;
end
$$;

-- Chapter 6: a whole flow in one call, what workers and migrations use; versions.
--
-- Of a flow that exists a definition may change the options. Its shape cannot change: a difference is an error that says
-- it in words, and nothing is deleted. A changed flow is a new version: a flow with a slug of its own, which shares the
-- alias that clients keep using. flow_aliases points to the newest; runs of older versions go on.

-- Creates a flow, updates its options where its shape is the same, or says what differs and changes nothing. Where all is
-- as it should be, it takes no lock; a new version waits for no start.
--   select pgflow.register_flow('{"flow_slug": "greet", "steps": [{"step_slug": "text"}, {"step_slug": "mail", "deps_slugs": ["text"]}]}');
--   select pgflow.register_flow('{"flow_slug": "greet_v2", "alias": "greet", "version": 2, "steps": [{"step_slug": "text"}]}');
-- A schema that the definition leaves out stays as it is; one where none was is added.
create function pgflow.register_flow(definition jsonb)
returns pgflow.flows
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
  wanted pgflow.flow_definition;
  flow pgflow.flows;
begin
  perform pgflow.assert_valid_definition(definition);
  wanted := jsonb_populate_record(null::pgflow.flow_definition, definition);
  wanted.version := coalesce(wanted.version, 1);
  wanted.alias := coalesce(wanted.alias, wanted.flow_slug);
  select f.* into flow from pgflow.flows f where f.flow_slug = wanted.flow_slug;
  if not found then
    perform pgflow.lock_definition(wanted.alias);
    select f.* into flow from pgflow.flows f where f.flow_slug = wanted.flow_slug;
  end if;
  if found then
    perform pgflow.assert_same_version(flow, wanted);
    perform pgflow.assert_same_shape(flow, definition);
    if to_regclass(format('pgmq.%I', 'q_' || flow.queue_name)) is null then
      perform pgflow.create_queue(flow.queue_name);
    end if;
  else
    perform pgflow.create_version(wanted);
  end if;
  perform pgflow.update_options(wanted);
  perform pgflow.update_schedules(wanted);
  update pgflow.flows f
  set shape_hash = md5(pgflow.flow_shape(pgflow.flow_definition(f.flow_slug))::text)
  where f.flow_slug = wanted.flow_slug
    and f.shape_hash is distinct from md5(pgflow.flow_shape(pgflow.flow_definition(f.flow_slug))::text);
  select f.* into flow from pgflow.flows f where f.flow_slug = wanted.flow_slug;
  return flow;
exception
  when lock_not_available then
    perform pgflow.raise_blocked(wanted.flow_slug, wanted.alias);
end
$$;
comment on function pgflow.register_flow is
  'Creates a flow from its definition, updates its options where its shape is the same, or says what differs.';

-- Raises PT409 where a flow exists in another shape, and says what has changed.
create function pgflow.assert_same_shape(flow pgflow.flows, definition jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  changes text := pgflow.shape_changes(
    pgflow.flow_shape(pgflow.flow_definition(flow.flow_slug)), pgflow.flow_shape(definition)
  );
begin
  if changes is not null then
    raise exception using
      errcode = 'PT409',
      message = format('the shape of "%s" changed: %s', flow.flow_slug, changes),
      hint = format(
        'Runs of it go on in the shape they have: give the changed flow a new version (version: %s).',
        (select max(f.version) + 1 from pgflow.flows f where f.alias = flow.alias)
      );
  end if;
end
$$;

-- A new flow with its steps; options and schemas are left to update_options.
create function pgflow.create_version(wanted pgflow.flow_definition)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  step pgflow.step_definition;
begin
  perform pgflow.assert_new_version(wanted);
  perform pgflow.create_flow(wanted.flow_slug);
  update pgflow.flows f set alias = wanted.alias, version = wanted.version
  where f.flow_slug = wanted.flow_slug and wanted.version > 1;
  for step in
    select * from jsonb_populate_recordset(null::pgflow.step_definition, wanted.steps)
  loop
    perform pgflow.add_step(
      wanted.flow_slug, step.step_slug, step.deps_slugs,
      step_type => coalesce(step.step_type, 'single'), map_source => step.map_source, map_path => step.map_path,
      run_if => step.run_if, run_unless => step.run_unless,
      when_unmet => coalesce(step.when_unmet, 'skip-cascade'), when_exhausted => coalesce(step.when_exhausted, 'fail'),
      completed_by => step.completed_by, assignees_path => step.assignees_path, not_by_owner => step.not_by_owner,
      when_timed_out => step.when_timed_out, timed_out_output => step.timed_out_output, webhook => step.webhook,
      sleep_for => step.sleep_for, until_path => step.until_path
    );
  end loop;
  if wanted.version > 1 then
    perform pgflow.move_alias(wanted.alias, wanted.flow_slug);
  end if;
end
$$;

-- The options of a flow and its steps, as their definition says; what is as it should be is not written again.
create function pgflow.update_options(wanted pgflow.flow_definition)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  update pgflow.flows f
  set opt_max_attempts = d.max_attempts,
      opt_base_delay = d.base_delay,
      opt_timeout = d.timeout,
      start_role = d.start_role,
      broadcast = d.broadcast,
      schedulable = d.schedulable,
      input_schema = coalesce(wanted.input_schema, f.input_schema),
      output_schema = coalesce(wanted.output_schema, f.output_schema)
  from (
    select coalesce(wanted.max_attempts, 3), coalesce(wanted.base_delay, 5), coalesce(wanted.timeout, 60),
           coalesce(wanted.start_role, 'service_role'), coalesce(wanted.broadcast, 'watched'), coalesce(wanted.schedulable, false)
  ) d (max_attempts, base_delay, timeout, start_role, broadcast, schedulable)
  where f.flow_slug = wanted.flow_slug
    and (f.opt_max_attempts, f.opt_base_delay, f.opt_timeout, f.start_role, f.broadcast, f.schedulable, f.input_schema, f.output_schema)
        is distinct from
        (d.max_attempts, d.base_delay, d.timeout, d.start_role, d.broadcast, d.schedulable,
         coalesce(wanted.input_schema, f.input_schema), coalesce(wanted.output_schema, f.output_schema));

  update pgflow.steps s
  set opt_max_attempts = d.max_attempts,
      opt_base_delay = d.base_delay,
      opt_timeout = d.timeout,
      opt_start_delay = d.start_delay,
      opt_sleep_for = d.sleep_for,
      input_schema = coalesce(d.input_schema, s.input_schema),
      output_schema = coalesce(d.output_schema, s.output_schema)
  from jsonb_populate_recordset(null::pgflow.step_definition, wanted.steps) d
  where s.flow_slug = wanted.flow_slug and s.step_slug = d.step_slug
    and (s.opt_max_attempts, s.opt_base_delay, s.opt_timeout, s.opt_start_delay, s.opt_sleep_for, s.input_schema,
         s.output_schema)
        is distinct from
        (d.max_attempts, d.base_delay, d.timeout, d.start_delay, d.sleep_for,
         coalesce(d.input_schema, s.input_schema), coalesce(d.output_schema, s.output_schema));
exception
  when check_violation then
    raise exception using
      errcode = 'PT400',
      message = format('flow "%s" has an invalid option', wanted.flow_slug),
      detail = sqlerrm,
      hint = 'max_attempts is at least 0, timeout 1 second to a year, base_delay and start_delay 0 seconds to a year, start_role is service_role, authenticated or anon, broadcast is watched, always or never. A wait or sleep has no max_attempts, base_delay or start_delay; sleep_for is 1 second to a year.';
end
$$;

-- The slug that a name stands for: of an alias its newest version, else the name itself.
--   select pgflow.newest_version('greet');  -- greet_v2
create function pgflow.newest_version(name text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((select a.flow_slug from pgflow.flow_aliases a where a.alias = newest_version.name), newest_version.name)
$$;
comment on function pgflow.newest_version is 'The slug of the newest version of an alias; another name stands for itself.';

-- Points an alias to a new version, unless it points to a newer one. A start that has resolved the alias before starts the
-- older version, and nobody waits for it.
create function pgflow.move_alias(alias text, flow_slug text)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into pgflow.flow_aliases as a (alias, flow_slug)
  values (move_alias.alias, move_alias.flow_slug)
  on conflict on constraint flow_aliases_pkey do update set flow_slug = excluded.flow_slug
  where (select f.version from pgflow.flows f where f.flow_slug = a.flow_slug)
      < (select f.version from pgflow.flows f where f.flow_slug = excluded.flow_slug)
$$;

-- Raises PT409 where the flow of this slug is there as something else.
create function pgflow.assert_same_version(flow pgflow.flows, wanted pgflow.flow_definition)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if (flow.alias, flow.version) <> (wanted.alias, wanted.version) then
    raise exception using
      errcode = 'PT409',
      message = format(
        'flow "%s" is version %s of "%s", not version %s of "%s"',
        flow.flow_slug, flow.version, flow.alias, wanted.version, wanted.alias
      ),
      hint = 'Register the version under another slug.';
  end if;
end
$$;

-- Raises where a flow that does not exist yet cannot be this version.
create function pgflow.assert_new_version(wanted pgflow.flow_definition)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  other text := (
    select f.flow_slug from pgflow.flows f where f.alias = wanted.alias and f.version = wanted.version
  );
begin
  perform pgflow.assert_valid_slug(wanted.alias);
  if wanted.version < 1 or (wanted.version = 1) <> (wanted.flow_slug = wanted.alias) then
    raise exception using
      errcode = 'PT400',
      message = format('flow "%s" cannot be version %s of "%s"', wanted.flow_slug, wanted.version, wanted.alias),
      hint = 'Versions are 1, 2, 3 …; version 1 has the alias as its slug, the others have slugs of their own.';
  end if;
  if other is not null then
    raise exception using
      errcode = 'PT409',
      message = format('version %s of "%s" is flow "%s", not "%s"', wanted.version, wanted.alias, other, wanted.flow_slug),
      hint = 'Give the flow the next version.';
  end if;
end
$$;

-- Each flow, its version, and what still runs of it: an old one is drained when running_runs is 0. workers counts those
-- that were heard of in the last minute.
--   select * from pgflow.flow_versions where alias = 'greet' order by version;
create view pgflow.flow_versions
with (security_invoker = true)
as
select f.alias, f.version, f.flow_slug, f.flow_slug = pgflow.newest_version(f.alias) as is_newest,
       r.running_runs, r.oldest_started_at, (
         select count(*) from pgflow.workers w
         where f.flow_slug = any (w.flow_slugs)
           and w.stopped_at is null
           and w.last_heartbeat_at > pgflow.now() - interval '1 minute'
       ) as workers,
       f.created_at, (
         select count(distinct t.run_id) from pgflow.step_tasks t where t.flow_slug = f.flow_slug and t.waits_for is not null
       ) as waiting_runs
from pgflow.flows f
cross join lateral (
  select count(*) as running_runs, min(r.started_at) as oldest_started_at
  from pgflow.runs r
  where r.flow_slug = f.flow_slug and r.status = 'started'
) r;
comment on view pgflow.flow_versions is
  'Each flow with its version, how many of its runs go on, since when, how many workers have it, and how many runs wait for somebody or a time.';

-- Deletes a flow that has no runs, and its queue; refuses otherwise, and for what an alias points to.
--   select pgflow.delete_flow('greet');
create function pgflow.delete_flow(flow_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
  flow pgflow.flows;
  running bigint;
  ended bigint;
begin
  perform pgflow.lock_shape(delete_flow.flow_slug);
  select f.* into flow from pgflow.flows f where f.flow_slug = delete_flow.flow_slug for update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('flow "%s" does not exist', delete_flow.flow_slug),
      hint = 'Check the slug: an alias is not a flow. The view pgflow.flow_versions lists them all.';
  end if;
  select count(*) filter (where r.status = 'started'), count(*) filter (where r.status <> 'started') into running, ended
  from pgflow.runs r where r.flow_slug = delete_flow.flow_slug;
  if running + ended > 0 then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" has %s runs that go on and %s that have ended', flow.flow_slug, running, ended),
      hint = 'Wait for those that go on, or cancel them; then delete its rows in pgflow.runs, if nobody needs them any more.';
  end if;
  if exists (select from pgflow.flow_aliases a where a.flow_slug = delete_flow.flow_slug)
     and exists (select from pgflow.flows f where f.alias = flow.alias and f.flow_slug <> flow.flow_slug) then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" is what "%s" starts', flow.flow_slug, flow.alias),
      hint = 'Point the row of the alias in pgflow.flow_aliases to another version first.';
  end if;
  delete from pgflow.flow_aliases a where a.flow_slug = delete_flow.flow_slug;
  delete from pgflow.deps d where d.flow_slug = delete_flow.flow_slug;
  delete from pgflow.steps s where s.flow_slug = delete_flow.flow_slug;
  delete from pgflow.flows f where f.flow_slug = delete_flow.flow_slug;
  if not exists (select from pgflow.flows f where f.alias = flow.alias) then
    -- Without waiting: who starts them has locked them, and waits for the flow.
    perform from pgflow.schedules s where s.alias = flow.alias for update nowait;
    delete from pgflow.schedules s where s.alias = flow.alias;
  end if;
  perform pgmq.drop_queue(flow.queue_name);
exception
  when lock_not_available then
    perform pgflow.raise_blocked(delete_flow.flow_slug, coalesce(flow.alias, delete_flow.flow_slug));
end
$$;
comment on function pgflow.delete_flow is 'Deletes a flow that has no runs, and its queue.';

-- Keeps the definition of a flow that has runs, whoever deletes it or changes its keys. It takes the place of foreign keys from
-- runs and step_states, which every start would check by locking the same few rows.
create function pgflow.tg_definitions__before_delete()
returns trigger
language plpgsql
security definer -- whoever may delete a definition may not see all runs
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'TRUNCATE' then
    if exists (select from pgflow.runs) then
      raise exception using
        errcode = 'PT409',
        message = format('pgflow.%s cannot be emptied: there are runs', tg_table_name),
        hint = 'Delete the rows in pgflow.runs first, if nobody needs them any more.';
    end if;
    return null;
  end if;
  -- Another one would not see a run that was started after its snapshot.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'PT409',
      message = format('the definition of flow "%s" cannot be deleted at this isolation level', old.flow_slug),
      hint = 'Delete it in a transaction that is READ COMMITTED.';
  end if;
  perform pgflow.lock_shape(old.flow_slug);
  if exists (select from pgflow.runs r where r.flow_slug = old.flow_slug) then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" has runs: its definition cannot be deleted', old.flow_slug),
      hint = 'Delete its rows in pgflow.runs first, if nobody needs them any more; then select pgflow.delete_flow(…).';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end
$$;

create trigger _100_keep before delete or update of flow_slug on pgflow.flows
  for each row execute function pgflow.tg_definitions__before_delete();
create trigger _100_keep_all after truncate on pgflow.flows
  for each statement execute function pgflow.tg_definitions__before_delete();
create trigger _100_keep before delete or update of flow_slug, step_slug on pgflow.steps
  for each row execute function pgflow.tg_definitions__before_delete();
create trigger _100_keep_all after truncate on pgflow.steps
  for each statement execute function pgflow.tg_definitions__before_delete();

-- Chapter 7: JSON Schema. A run's input is held against its flow's input_schema where the extension pg_jsonschema (0.3 or
-- newer) is installed; where it is not, nothing is validated here. Steps' schemas are the workers' business.

-- What is wrong with a value, as `path: reason`; empty where nothing is, or where pg_jsonschema is not installed.
--   select pgflow.schema_errors('{"properties": {"path": {"type": "string"}}}', '{"path": 5}');
--   -- {"$.path: 5 is not of type \"string\""}
create function pgflow.schema_errors(schema jsonb, value jsonb)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  validator regprocedure := to_regprocedure(format('%s.jsonschema_validation_errors(json, json)', coalesce(
    (select e.extnamespace::regnamespace::text from pg_extension e where e.extname = 'pg_jsonschema'), 'extensions'
  )));
  errors text[];
begin
  if validator is not null then
    execute format('select %s($1::json, $2::json)', validator::regproc) into errors using schema, value;
    if errors <> '{}' then
      return pgflow.located_schema_errors(validator, schema, value, schema, '$');
    end if;
  end if;
  return '{}';
end
$$;

-- The extension gives reasons without paths. So a value that does not match is taken apart along `properties`, `items` and
-- `$ref`: what is wrong with itself, and what with its parts. `root` has the definitions that parts refer to.
create function pgflow.located_schema_errors(validator regprocedure, schema jsonb, value jsonb, root jsonb, path text)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  definitions constant jsonb := jsonb_strip_nulls(jsonb_build_object('definitions', root -> 'definitions', '$defs', root -> '$defs'));
  part record;
  own text[];
  found text[] := '{}';
begin
  if schema ->> '$ref' ~ '^#/(definitions|[$]defs)/[^/]+$' then
    schema := root #> string_to_array(substr(schema ->> '$ref', 3), '/');
  end if;
  if jsonb_typeof(schema) = 'object' then
    schema := schema || definitions;
  end if;
  for part in
    select format('%s.%s', path, p.key) as path, p.value as schema, value -> p.key as value
    from jsonb_each(case when jsonb_typeof(value) = 'object' and jsonb_typeof(schema -> 'properties') = 'object' then schema -> 'properties' end) p
    where value ? p.key
    union all
    select format('%s[%s]', path, i.n - 1), schema -> 'items', i.value
    from jsonb_array_elements(case when jsonb_typeof(value) = 'array' and jsonb_typeof(schema -> 'items') = 'object' then value end)
      with ordinality as i (value, n)
  loop
    exit when root::text like '%"$ref": "#"%'; -- refers to the whole: a part cannot be judged on its own
    execute format('select %s($1::json, $2::json)', validator::regproc) into own
    using case when jsonb_typeof(part.schema) = 'object' then part.schema || definitions else part.schema end, part.value;
    if own <> '{}' then
      found := found || pgflow.located_schema_errors(validator, part.schema, part.value, root, part.path);
    end if;
  end loop;
  execute format('select %s($1::json, $2::json)', validator::regproc) into own
  using case when found = '{}' then schema else pgflow.schema_of_itself(schema) end, value;
  return array(select format('%s: %s', path, reason) from unnest(own) reason) || found;
end
$$;

-- A schema that says nothing of the parts of a value, which are judged on their own.
create function pgflow.schema_of_itself(schema jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select schema - 'items' || jsonb_build_object('properties', (
    select coalesce(jsonb_object_agg(key, true), '{}')
    from jsonb_object_keys(case when jsonb_typeof(schema -> 'properties') = 'object' then schema -> 'properties' end) key
  ))
$$;

-- Raises PT400 where an input of a run is not what its flow takes; says where and why.
create function pgflow.assert_valid_inputs(flow pgflow.flows, inputs jsonb[])
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  input jsonb;
  errors text[];
begin
  foreach input in array case when flow.input_schema is null then '{}' else inputs end loop
    errors := pgflow.schema_errors(flow.input_schema, input);
    if errors <> '{}' then
      raise exception using
        errcode = 'PT400',
        message = format('the input is not what flow "%s" takes: %s', flow.flow_slug, errors[1]),
        detail = array_to_string(errors, '; '),
        hint = 'The flow''s input_schema says what it takes.';
    end if;
  end loop;
end
$$;

-- Chapter 8: runs begin.

-- Starts runs, or finds those that the same keys have started, of another version too: what start_flow and start_flows
-- do. Each array has an element for each run, or is null; a run_id that is null is given one.
create function pgflow.start_runs(
  flow_slug text,
  run_ids uuid[],
  inputs jsonb[],
  idempotency_keys text[],
  owner_id uuid,
  group_id uuid,
  metadata jsonb,
  delay int
)
returns setof pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
#variable_conflict use_column
declare
  started_by uuid := coalesce(start_runs.owner_id, pgflow.current_user_id());
  as_of timestamptz := pgflow.now();
  flow pgflow.flows := pgflow.lock_flow(start_runs.flow_slug);
  steps int;
  are_plain boolean;
  roots text[];
  root_delays int[];
  ids uuid[] := pgflow.new_run_ids(cardinality(start_runs.inputs), as_of);
  keyed uuid[];
  started uuid[];
  begun pgflow.step_key[];
  ready pgflow.step_key[];
begin
  select count(*), bool_and(s.is_plain) filter (where s.deps_count = 0),
         array_agg(s.step_slug order by s.step_index) filter (where s.deps_count = 0),
         array_agg(coalesce(s.opt_start_delay, 0) order by s.step_index) filter (where s.deps_count = 0)
  into steps, are_plain, roots, root_delays
  from pgflow.steps s
  where s.flow_slug = flow.flow_slug;
  perform pgflow.assert_can_start(
    flow, steps, start_runs.inputs, start_runs.idempotency_keys, start_runs.metadata, start_runs.delay
  );
  if num_nonnulls(variadic start_runs.run_ids) > 0 then
    ids := array(select coalesce(r.run_id, ids[r.n]) from unnest(start_runs.run_ids) with ordinality r (run_id, n) order by r.n);
  end if;
  if num_nonnulls(variadic start_runs.idempotency_keys) > 0 then
    with key as (
      insert into pgflow.run_keys (run_id, alias, key, owner_id)
      select r.run_id, flow.alias, r.key, started_by
      from unnest(ids, start_runs.idempotency_keys) with ordinality r (run_id, key, n)
      where r.key is not null
      order by r.key, r.n -- one order for all, since a start waits for another with the same key
      on conflict do nothing
      returning run_id
    )
    select array_agg(run_id) into keyed from key;
  end if;

  -- Plain root steps start with their run, and have their tasks where all of them are plain, as mostly. One statement, so that
  -- the trigger of runs finds its steps, and writes one statement of events.
  with
    run as (
      insert into pgflow.runs (run_id, flow_slug, input, owner_id, group_id, idempotency_key, metadata, started_at)
      select r.run_id, flow.flow_slug, r.input, started_by, start_runs.group_id, r.key, start_runs.metadata, as_of
      from unnest(ids, start_runs.inputs, start_runs.idempotency_keys) with ordinality r (run_id, input, key, n)
      where r.key is null or r.run_id = any (keyed)
      order by r.n
      on conflict do nothing
      returning run_id
    ),
    state as (
      insert into pgflow.step_states (
        run_id, step_slug, flow_slug, status, remaining_deps, remaining_tasks, initial_tasks, created_at, started_at
      )
      select r.run_id, s.step_slug, s.flow_slug, case when root.starts then 'started' else 'created' end, s.deps_count,
             case when root.starts then 1 end, case when root.starts then 1 end, as_of, case when root.starts then as_of end
      from run r
      cross join pgflow.steps s
      cross join lateral (select s.deps_count = 0 and s.is_plain) as root (starts)
      where s.flow_slug = flow.flow_slug
      returning run_id, step_slug, status, remaining_deps
    ),
    batch as (
      select root.delay, array_agg(r.run_id) as run_ids, array_agg(root.step_slug) as step_slugs,
             array_agg(jsonb_build_object(
               'flow_slug', flow.flow_slug, 'run_id', r.run_id, 'step_slug', root.step_slug, 'task_index', 0
             )) as messages
      from run r
      cross join unnest(roots, root_delays) root (step_slug, delay)
      where are_plain
      group by root.delay
    ),
    task as (
      insert into pgflow.step_tasks (run_id, step_slug, task_index, flow_slug, message_id, queued_at)
      select t.run_id, t.step_slug, 0, flow.flow_slug, t.msg_id, as_of
      from batch b
      cross join lateral rows from (
        unnest(b.run_ids), unnest(b.step_slugs),
        pgflow.send_messages(flow.queue_name, b.messages, b.delay + start_runs.delay)
      ) as t (run_id, step_slug, msg_id)
    )
  select (select array_agg(run_id) from run),
         (select array_agg(row(run_id, step_slug)::pgflow.step_key) from state where status = 'started' and not are_plain),
         (select array_agg(row(run_id, step_slug)::pgflow.step_key) from state where status = 'created' and remaining_deps = 0)
  into started, begun, ready;
  if not are_plain then
    perform pgflow.advance(pgflow.decide(ready, as_of, start_runs.delay), as_of, begun, start_runs.delay);
  elsif started is not null then
    perform pgflow.notify_workers(started);
  end if;

  if cardinality(started) = cardinality(ids) then
    return query
      select run.* from unnest(ids) with ordinality r (run_id, n) join pgflow.runs run using (run_id) order by r.n;
    return;
  end if;
  return query
    select run.*
    from unnest(ids, start_runs.inputs, start_runs.idempotency_keys) with ordinality r (run_id, input, key, n)
    cross join lateral (
      select own.* from pgflow.runs own where own.run_id = r.run_id and own.run_id = any (started)
      union all
      select existing.*
      from pgflow.existing_run(
        flow, r.run_id, r.input, r.key, started_by, start_runs.group_id, start_runs.metadata, start_runs.delay
      ) existing
      where r.run_id <> all (coalesce(started, '{}'))
    ) run
    order by r.n;
end
$$;

-- Starts a run: the run, a state for each step, and the tasks of the root steps, all in the caller's transaction.
--   select * from pgflow.start_flow('analyze_document', '{"path": "README.md"}');
-- An alias starts its newest version. The same idempotency key (or run_id) of the same owner and flow, whatever its
-- version, gives the run that exists; with another input it is an error. The owner is the one named, else the signed-in user;
-- `group_id` is that of a team, for pgflow.can_access_run to look at. `delay` is in seconds, a year at most.
create function pgflow.start_flow(
  flow_slug text,
  input jsonb,
  run_id uuid default null,
  idempotency_key text default null,
  owner_id uuid default null,
  metadata jsonb default null,
  delay int default 0,
  group_id uuid default null
)
returns setof pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select * from pgflow.start_runs(
    start_flow.flow_slug, array[start_flow.run_id], array[start_flow.input], array[start_flow.idempotency_key],
    start_flow.owner_id, start_flow.group_id, start_flow.metadata, start_flow.delay
  );
end
$$;
comment on function pgflow.start_flow is
  'Starts a run of a flow, or returns the one that the idempotency key (or run_id) has started already.';

-- Starts a run for each of many inputs, a JSON array, in one go; answers in their order.
--   select * from pgflow.start_flows('resize_image', '[{"path": "a.png"}, {"path": "b.png"}]');
-- idempotency_keys has a key for each input, or is null.
create function pgflow.start_flows(
  flow_slug text,
  inputs jsonb,
  idempotency_keys text[] default null,
  owner_id uuid default null,
  metadata jsonb default null,
  delay int default 0,
  group_id uuid default null
)
returns setof pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(inputs) is distinct from 'array' or cardinality(idempotency_keys) <> jsonb_array_length(inputs) then
    raise exception using
      errcode = 'PT400',
      message = format('the inputs for flow "%s" cannot be started', flow_slug),
      detail = format('inputs: %s, keys: %s', coalesce(jsonb_typeof(inputs), 'null'), cardinality(idempotency_keys)),
      hint = 'Give inputs as a JSON array, and idempotency_keys not at all or as many as there are inputs.';
  end if;
  return query select * from pgflow.start_runs(
    start_flows.flow_slug, null, array(select i.input from jsonb_array_elements(start_flows.inputs) i (input)),
    start_flows.idempotency_keys, start_flows.owner_id, start_flows.group_id, start_flows.metadata, start_flows.delay
  );
end
$$;
comment on function pgflow.start_flows is 'Starts a run of a flow for each of many inputs.';

-- The flow that a name stands for; its shape is kept as it is until the transaction ends. All starts of a flow share a lock in
-- memory: one of the flow's row, which many hold at the same time, would be written to the log, and change the row.
create function pgflow.lock_flow(name text)
returns pgflow.flows
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  locked text;
  flow pgflow.flows;
begin
  loop
    select n.slug into locked
    from (
      select coalesce((select a.flow_slug from pgflow.flow_aliases a where a.alias = lock_flow.name), lock_flow.name) as slug
    ) n
    where pg_advisory_xact_lock_shared(hashtextextended('pgflow.shape:' || n.slug, 0)) is not null;
    -- What it is now: the lock may have been awaited.
    select f.* into flow from pgflow.flows f
    where f.flow_slug = coalesce((select a.flow_slug from pgflow.flow_aliases a where a.alias = lock_flow.name), lock_flow.name);
    if not found then
      perform pgflow.assert_valid_slug(lock_flow.name);
      raise exception using
        errcode = 'PT404',
        message = format('flow "%s" does not exist', lock_flow.name),
        hint = 'Check the slug; a flow exists once a worker that has it was started, or its compiled SQL was run.';
    end if;
    exit when flow.flow_slug = locked;
  end loop;
  if current_setting('transaction_isolation') <> 'read committed' then
    perform from pgflow.flows f where f.flow_slug = locked for key share; -- an error if it was deleted after the snapshot
  end if;
  return flow;
end
$$;

-- Refuses a start that makes no sense.
create function pgflow.assert_can_start(
  flow pgflow.flows,
  steps int,
  inputs jsonb[],
  idempotency_keys text[],
  metadata jsonb,
  delay int
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if assert_can_start.steps = 0 then
    raise exception using
      errcode = 'PT400',
      message = format('flow "%s" has no steps', flow.flow_slug),
      hint = 'Add them first: select pgflow.add_step(…).';
  end if;
  if num_nulls(variadic assert_can_start.inputs) > 0 then
    raise exception using
      errcode = 'PT400',
      message = format('the input for flow "%s" is missing', flow.flow_slug),
      hint = 'Give the argument input any JSON value, for instance {} or null.';
  end if;
  if num_nonnulls(variadic assert_can_start.idempotency_keys) > 0
     and exists (select from unnest(assert_can_start.idempotency_keys) key where length(key) not between 1 and 255) then
    raise exception using
      errcode = 'PT400',
      message = format('an idempotency key for flow "%s" is empty or too long', flow.flow_slug),
      hint = 'Give a key 1 to 255 characters, for instance the id of what the run is for, or leave it out.';
  end if;
  if octet_length(assert_can_start.metadata::text) > 65536 then
    raise exception using
      errcode = 'PT413',
      message = format('metadata of %s bytes are too large', octet_length(assert_can_start.metadata::text)),
      hint = 'Keep metadata, as JSON text, within 64 KB: they say what a run belongs to; its data go into the input.';
  end if;
  if assert_can_start.delay is null or assert_can_start.delay not between 0 and 31536000 then
    raise exception using
      errcode = 'PT400', message = 'delay is not a number of seconds',
      hint = 'Give delay in whole seconds, from 0 to a year (31536000).';
  end if;
  if flow.input_schema is not null then
    perform pgflow.assert_valid_inputs(flow, assert_can_start.inputs);
  end if;
end
$$;

-- The run that a start met instead of making one; an error where it is not the same start. One that was deleted since is
-- started after all. Only who knows a run's id is told of it: what a key found is not named in errors.
create function pgflow.existing_run(
  flow pgflow.flows,
  run_id uuid,
  input jsonb,
  idempotency_key text,
  owner_id uuid,
  group_id uuid,
  metadata jsonb,
  delay int
)
returns pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
  named text := format('run_id %s', existing_run.run_id);
begin
  select r.* into run from pgflow.runs r where r.run_id = existing_run.run_id;
  if not found then
    named := format('the idempotency key %s', to_json(existing_run.idempotency_key));
    select r.* into run
    from (
      select k.run_id from pgflow.run_keys k
      where k.owner_id = existing_run.owner_id and k.alias = flow.alias and k.key = existing_run.idempotency_key
      union all
      select k.run_id from pgflow.run_keys k
      where existing_run.owner_id is null and k.owner_id is null and k.alias = flow.alias and k.key = existing_run.idempotency_key
    ) found_key
    join pgflow.runs r using (run_id);
  end if;
  if not found then
    delete from pgflow.run_keys k where k.run_id = existing_run.run_id; -- which this start has taken for the run that is gone
    select r.* into run from pgflow.start_runs(
      flow.flow_slug, array[existing_run.run_id], array[existing_run.input], array[existing_run.idempotency_key],
      owner_id, group_id, metadata, delay
    ) r;
    return run;
  end if;
  if run.owner_id is distinct from existing_run.owner_id
     or existing_run.idempotency_key <> coalesce(run.idempotency_key, '')
     or flow.alias <> (select f.alias from pgflow.flows f where f.flow_slug = run.flow_slug) then
    raise exception using
      errcode = 'PT409',
      message = format('%s is taken', named),
      hint = 'Leave it out, or use another one, to start a new run.';
  end if;
  if run.input <> existing_run.input then
    raise exception using
      errcode = 'PT409',
      message = format('%s was used with another input for flow "%s"', named, flow.alias),
      hint = 'Use a new idempotency key for a new input.';
  end if;
  return run;
end
$$;

-- The signed-in user of the request: auth.uid(), but null instead of an error for a subject that is no uuid, and there
-- also without a schema auth.
create function pgflow.current_user_id()
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  claims text := current_setting('request.jwt.claims', true);
begin
  if claims <> '' and claims::jsonb ->> 'sub' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    return (claims::jsonb ->> 'sub')::uuid;
  end if;
  return null;
end
$$;

-- Chapter 9: runs move forward.
--
-- Whatever closes a step goes through `advance`, which works in waves until nothing changes: a wave closes and starts
-- steps in one update (so it makes one message a run), and decides what becomes of those whose deps are closed now.
-- Skips, empty maps and conditions so reach one fix-point together. Callers hold the runs' locks.

-- What a step works on: its combined input {"run": …, "<dep>": …} over completed deps, and a map's array of items.
create view pgflow.step_inputs
with (security_invoker = true)
as
select ss.run_id, ss.step_slug,
       jsonb_build_object('run', r.input) || coalesce(
         (
           select jsonb_object_agg(d.dep_slug, dep.output)
           from pgflow.deps d
           join pgflow.step_states dep on dep.run_id = ss.run_id and dep.step_slug = d.dep_slug
           where d.flow_slug = ss.flow_slug and d.step_slug = ss.step_slug and dep.status = 'completed'
         ),
         '{}'
       ) as input,
       (
         select case s.map_source
           when 'run' then r.input
           else (
             select source.output from pgflow.step_states source
             where source.run_id = ss.run_id and source.step_slug = s.map_source and source.status = 'completed'
           )
         end #> coalesce(string_to_array(s.map_path, '.'), '{}')
         from pgflow.steps s
         where s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
       ) as items
from pgflow.step_states ss
join pgflow.runs r using (run_id);
comment on view pgflow.step_inputs is 'The inputs of steps as their deps stand, and the items of maps.';

create type pgflow.step_change as (
  run_id uuid,
  flow_slug text,
  step_slug text,
  change text,
  result_n bigint,
  error text,
  skip_reason text,
  cascade boolean,
  tasks int,
  items int,
  retries int,
  retry_at timestamptz,
  waits_for text,
  due_at timestamptz
);
comment on type pgflow.step_change is
  'What happens to a step: completed, failed, skipped (cascade: its dependents too), started with tasks of items (a wait or sleep: what it waits for, until when), or working: tasks completed, retries. result_n is the place of the result with the output of a completed step; it is null where its tasks have the output.';

-- Applies changes and all that follows from them. `started` are steps that have started already, and get their tasks;
-- messages are visible after `delay` seconds. `outputs` has the results that the changes name.
create function pgflow.advance(
  changes pgflow.step_change[],
  as_of timestamptz,
  started pgflow.step_key[] default '{}',
  delay int default 0,
  outputs jsonb default '[]'
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  wave pgflow.step_change[] := changes;
  applied pgflow.step_change[] := '{}';
  started_now pgflow.step_key[];
  ready pgflow.step_key[];
  closes boolean;
  failed_runs uuid[];
  exhausted pgflow.step_key[];
begin
  while cardinality(wave) > 0 loop
    select c.started, c.ready into started_now, ready from pgflow.change_steps(wave, outputs, as_of) c;
    started := started || started_now;
    applied := applied || wave;
    wave := case when ready is not null then pgflow.decide(ready, as_of, delay) end
      || case when exists (select from unnest(wave) w where w.cascade) then pgflow.cascade_skips(wave) end;
  end loop;
  if cardinality(started) > 0 then
    perform pgflow.create_tasks(started, as_of, delay);
    perform pgflow.notify_workers(array(select s.run_id from unnest(started) s));
  end if;
  if cardinality(applied) = 0 then
    return;
  end if;
  select bool_or(a.change in ('completed', 'failed', 'skipped')),
         array_agg(distinct a.run_id) filter (where a.change = 'failed'),
         array_agg(row(a.run_id, a.step_slug)::pgflow.step_key) filter (where a.skip_reason = 'attempts_exhausted')
  into closes, failed_runs, exhausted
  from unnest(applied) a;
  if closes then
    perform pgflow.close_tasks(coalesce(failed_runs, '{}'), coalesce(exhausted, '{}'));
    perform pgflow.end_runs(applied, as_of);
  end if;
end
$$;

-- One wave: the steps that change, their dependents, and everything that is open in a run that fails, in one update.
-- Answers with the steps that have started, and those whose deps are all closed now and that have to be decided. What a change
-- writes; other columns stay as they are:
--
--   change     status     remaining_deps  remaining_tasks  initial_tasks  values                        time
--   freed      created    less deps
--   started    started    less deps       tasks            items          error = null; of waits and    started_at, if null
--                                                                         sleeps waits_for, due_at
--   working    started                    less tasks                      progress; of retries: error,
--                                                                         retries, retry_at
--   completed  completed                  0                0, if null     output, error = null          started_at, if null;
--                                                                                                       completed_at
--   failed     failed                                                     error                         failed_at
--   skipped    skipped                                                    error, skip_reason            skipped_at
--   cancelled  cancelled
create function pgflow.change_steps(
  changes pgflow.step_change[],
  outputs jsonb,
  as_of timestamptz,
  out started pgflow.step_key[],
  out ready pgflow.step_key[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  with
    change as (
      select c.*, bool_or(c.change = 'failed') over (partition by c.run_id) as run_fails
      from unnest(change_steps.changes) c
    ),
    freed as (
      select c.run_id, c.flow_slug, d.step_slug, count(*)::int as deps
      from change c
      join pgflow.deps d on d.flow_slug = c.flow_slug and d.dep_slug = c.step_slug
      where not c.run_fails
        and (c.change = 'completed' or c.change = 'skipped' and not c.cascade)
      group by c.run_id, c.flow_slug, d.step_slug
    ),
    candidate as (
      select 1 as rank, c.run_id, c.step_slug, c.change, c.result_n, c.error, c.skip_reason, c.tasks, c.items, c.retries,
             c.retry_at, c.waits_for, c.due_at, 0 as deps
      from change c
      where not c.run_fails or c.change in ('completed', 'failed', 'skipped')
      union all
      select 2, f.run_id, f.step_slug,
             case when s.is_plain and ss.remaining_deps = f.deps then 'started' else 'freed' end,
             null, null, null, 1, 1, 0, null, null, null, f.deps
      from freed f
      join pgflow.step_states ss using (run_id, step_slug)
      join pgflow.steps s on s.flow_slug = f.flow_slug and s.step_slug = f.step_slug
      where ss.status = 'created'
      union all
      select 3, ss.run_id, ss.step_slug, 'cancelled', null, null, null, 0, 0, 0, null, null, null, 0
      from (select distinct c.run_id from change c where c.run_fails) failing
      join pgflow.step_states ss using (run_id)
      where ss.status in ('created', 'started')
    ),
    -- A step that changes by itself is not also freed or cancelled.
    next as (
      select distinct on (c.run_id, c.step_slug) c.* from candidate c order by c.run_id, c.step_slug, c.rank
    ),
    updated as (
      update pgflow.step_states ss
      set status = case n.change when 'freed' then 'created' when 'working' then 'started' else n.change end,
          remaining_deps = ss.remaining_deps - n.deps,
          initial_tasks = case n.change
            when 'started' then n.items
            when 'completed' then coalesce(ss.initial_tasks, 0)
            else ss.initial_tasks
          end,
          remaining_tasks = case n.change
            when 'started' then n.tasks
            when 'completed' then 0
            when 'working' then ss.remaining_tasks - n.tasks
            else ss.remaining_tasks
          end,
          -- At most 20 times a step, and not at its end.
          progress = case
            when n.change = 'working'
             and 20 * (ss.initial_tasks - ss.remaining_tasks + n.tasks) / ss.initial_tasks
               > 20 * (ss.initial_tasks - ss.remaining_tasks) / ss.initial_tasks
            then jsonb_build_object('done', ss.initial_tasks - ss.remaining_tasks + n.tasks, 'total', ss.initial_tasks)
            else ss.progress
          end,
          output = case
            when n.change <> 'completed' then null
            when n.result_n is null then pgflow.output_of_tasks(ss.run_id, ss.flow_slug, ss.step_slug)
            else coalesce(outputs -> (n.result_n - 1)::int -> 'output', 'null')
          end,
          error = case
            when n.change in ('freed', 'cancelled') or n.change = 'working' and n.retries = 0 then ss.error
            else n.error
          end,
          skip_reason = n.skip_reason,
          retries = ss.retries + coalesce(n.retries, 0),
          retry_at = coalesce(n.retry_at, ss.retry_at),
          waits_for = coalesce(n.waits_for, ss.waits_for),
          due_at = coalesce(n.due_at, ss.due_at),
          started_at = case when n.change in ('started', 'completed') then coalesce(ss.started_at, as_of) else ss.started_at end,
          completed_at = case n.change when 'completed' then as_of end,
          failed_at = case n.change when 'failed' then as_of end,
          skipped_at = case n.change when 'skipped' then as_of end
      from next n
      where (ss.run_id, ss.step_slug) = (n.run_id, n.step_slug)
      returning ss.run_id, ss.step_slug, n.change, ss.remaining_deps
    )
  select array_agg(row(u.run_id, u.step_slug)::pgflow.step_key) filter (where u.change = 'started'),
         array_agg(row(u.run_id, u.step_slug)::pgflow.step_key) filter (where u.change = 'freed' and u.remaining_deps = 0)
  into started, ready
  from updated u;
end
$$;

-- The output of a step that completes without a result: of a map its items' outputs, in their order; of a wait the value that it
-- was completed with before it began; else null.
create function pgflow.output_of_tasks(run_id uuid, flow_slug text, step_slug text)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from pgflow.steps s
    where s.flow_slug = output_of_tasks.flow_slug and s.step_slug = output_of_tasks.step_slug and s.step_type = 'map'
  ) then
    return (
      select coalesce(jsonb_agg(t.output order by t.task_index), '[]')
      from pgflow.step_tasks t
      where t.run_id = output_of_tasks.run_id and t.step_slug = output_of_tasks.step_slug
    );
  end if;
  return coalesce((
    select t.output from pgflow.step_tasks t
    where t.run_id = output_of_tasks.run_id and t.step_slug = output_of_tasks.step_slug and t.task_index = 0
  ), 'null');
end
$$;

-- What becomes of steps whose deps are all closed: their conditions are looked at, a map's items, and what waits wait for. `delay`
-- is that of runs that start.
create function pgflow.decide(ready pgflow.step_key[], as_of timestamptz, delay int default 0)
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  changes pgflow.step_change[];
begin
  if ready is null then
    return '{}'; -- as mostly: a plain step starts without a decision
  end if;
  changes := (
    with
      step as (
        select s.*, ss.run_id,
               case when s.run_if is not null or s.run_unless is not null then (
                 select i.input from pgflow.step_inputs i where i.run_id = ss.run_id and i.step_slug = ss.step_slug
               ) end as input,
               case when s.step_type = 'map' then (
                 select i.items from pgflow.step_inputs i where i.run_id = ss.run_id and i.step_slug = ss.step_slug
               ) end as items
        from unnest(decide.ready) k
        join pgflow.step_states ss using (run_id, step_slug)
        join pgflow.steps s using (flow_slug, step_slug)
        where ss.status = 'created'
      ),
      judged as (
        select s.*,
               (s.run_if is null or s.input @> s.run_if) and (s.run_unless is null or not s.input @> s.run_unless) as is_met,
               case when s.step_type <> 'map' then 1 when jsonb_typeof(s.items) = 'array' then jsonb_array_length(s.items) end
                 as total,
               s.items is null and exists (
                 select from pgflow.step_states source
                 where source.run_id = s.run_id and source.step_slug = s.map_source and source.status = 'skipped'
               ) as has_no_source,
               -- Where the run was retried, completed items are kept; a wait may be completed before it begins.
               (
                 select count(*)::int from pgflow.step_tasks t
                 where t.run_id = s.run_id and t.step_slug = s.step_slug and t.status = 'completed'
               ) as kept
        from step s
      ),
      decided as (
        select j.*, case
          when not j.is_met then case j.when_unmet when 'fail' then 'failed' else 'skipped' end
          when j.total is null and not j.has_no_source then 'failed'
          when coalesce(j.total, 0) = j.kept then 'completed'
          when j.step_type in ('wait', 'sleep') then 'waiting'
          else 'started'
        end as change
        from judged j
      )
    select coalesce(array_agg(row(c.*)::pgflow.step_change), '{}')
    from decided d
    cross join lateral (
      select d.run_id, d.flow_slug, d.step_slug, d.change,
             null::bigint as result_n,
             case
               when d.change <> 'failed' then null
               when not d.is_met then format('step "%s" does not run: its condition is not met', d.step_slug)
               else format('step "%s" cannot map %s: it is %s, not an array', d.step_slug,
                 concat_ws('.', d.map_source, d.map_path), coalesce(jsonb_typeof(d.items), 'missing'))
             end as error,
             case d.change when 'skipped' then 'condition_unmet' end as skip_reason,
             d.change = 'skipped' and d.when_unmet = 'skip-cascade' as cascade,
             case when d.change in ('started', 'waiting') then d.total - d.kept when d.change = 'completed' then 0 end as tasks,
             case when d.change in ('started', 'waiting') then d.total when d.change = 'completed' then 0 end as items,
             0 as retries,
             null::timestamptz as retry_at,
             null::text as waits_for,
             null::timestamptz as due_at
    ) c
  );
  if exists (select from unnest(changes) c where c.change = 'waiting') then
    return pgflow.begin_waits(changes, as_of, delay);
  end if;
  return changes;
end
$$;

-- The dependents of steps that were skipped with all that depends on them.
create function pgflow.cascade_skips(changes pgflow.step_change[])
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(array_agg(distinct row(skipped.*)::pgflow.step_change), '{}')
    from unnest(cascade_skips.changes) c
    join pgflow.deps d on d.flow_slug = c.flow_slug and d.dep_slug = c.step_slug
    join pgflow.step_states ss on ss.run_id = c.run_id and ss.step_slug = d.step_slug
    cross join lateral (
      select c.run_id, c.flow_slug, d.step_slug, 'skipped' as change, null::bigint as result_n, null as error,
             'dep_skipped' as skip_reason, true as cascade, null::int as tasks, null::int as items, 0 as retries,
             null::timestamptz as retry_at,
             null::text as waits_for,
             null::timestamptz as due_at
    ) skipped
    where c.change = 'skipped' and c.cascade and ss.status = 'created'
  );
end
$$;

-- Creates the tasks of steps that have started at `now`, one for each item of a map, and sends their messages, visible
-- after the steps' own delay plus `delay` seconds. Nearly always all of them are single steps that have never had one.
create function pgflow.create_tasks(steps pgflow.step_key[], as_of timestamptz, delay int default 0)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  created bigint;
begin
  with
    step as (
      select ss.run_id, s.step_slug, s.step_index, s.flow_slug, f.queue_name,
             least(2147483647, coalesce(s.opt_start_delay, 0)::bigint + create_tasks.delay)::int as delay
      from unnest(create_tasks.steps) k
      join pgflow.step_states ss using (run_id, step_slug)
      join pgflow.steps s using (flow_slug, step_slug)
      join pgflow.flows f using (flow_slug)
      where ss.status = 'started' and s.step_type = 'single' and (
        select t.status from pgflow.step_tasks t
        where t.run_id = ss.run_id and t.step_slug = ss.step_slug and t.task_index = 0
      ) is null
    ),
    batch as (
      select s.queue_name, s.delay, s.flow_slug,
             array_agg(s.run_id order by s.run_id, s.step_index) as run_ids,
             array_agg(s.step_slug order by s.run_id, s.step_index) as step_slugs,
             array_agg(
               jsonb_build_object('flow_slug', s.flow_slug, 'run_id', s.run_id, 'step_slug', s.step_slug, 'task_index', 0)
               order by s.run_id, s.step_index
             ) as messages
      from step s
      where (select count(*) from step) = cardinality(create_tasks.steps)
      group by s.queue_name, s.delay, s.flow_slug
    )
  insert into pgflow.step_tasks (run_id, step_slug, task_index, flow_slug, message_id, queued_at)
  select t.run_id, t.step_slug, 0, b.flow_slug, t.msg_id, create_tasks.as_of
  from batch b
  cross join lateral rows from (
    unnest(b.run_ids), unnest(b.step_slugs), pgflow.send_messages(b.queue_name, b.messages, b.delay)
  ) as t (run_id, step_slug, msg_id);
  get diagnostics created = row_count;
  if created = 0 then
    perform pgflow.create_other_tasks(create_tasks.steps, create_tasks.as_of, create_tasks.delay);
  end if;
end
$$;

-- The same where some of the steps are maps, or start again. Of a map that starts again, completed tasks are kept.
create function pgflow.create_other_tasks(steps pgflow.step_key[], as_of timestamptz, delay int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  with
    step as (
      select ss.run_id, s.step_slug, s.step_index, s.flow_slug, s.step_type, f.queue_name,
             least(2147483647, coalesce(s.opt_start_delay, 0)::bigint + create_other_tasks.delay)::int as delay
      from unnest(create_other_tasks.steps) k
      join pgflow.step_states ss using (run_id, step_slug)
      join pgflow.steps s using (flow_slug, step_slug)
      join pgflow.flows f using (flow_slug)
      where ss.status = 'started'
    ),
    task as (
      select s.*, 0 as task_index, null::jsonb as input
      from step s
      where s.step_type = 'single'
      union all
      select s.*, e.n::int - 1, e.item
      from step s
      cross join lateral jsonb_array_elements(
        (select i.items from pgflow.step_inputs i where i.run_id = s.run_id and i.step_slug = s.step_slug)
      ) with ordinality as e (item, n)
      where s.step_type = 'map'
        and (
          select t.status from pgflow.step_tasks t
          where t.run_id = s.run_id and t.step_slug = s.step_slug and t.task_index = e.n::int - 1
        ) is distinct from 'completed'
    ),
    batch as (
      select t.queue_name, t.delay, t.flow_slug,
             array_agg(t.run_id order by t.run_id, t.step_index, t.task_index) as run_ids,
             array_agg(t.step_slug order by t.run_id, t.step_index, t.task_index) as step_slugs,
             array_agg(t.task_index order by t.run_id, t.step_index, t.task_index) as task_indexes,
             array_agg(t.input order by t.run_id, t.step_index, t.task_index) as inputs,
             array_agg(
               jsonb_build_object(
                 'flow_slug', t.flow_slug, 'run_id', t.run_id, 'step_slug', t.step_slug, 'task_index', t.task_index
               ) order by t.run_id, t.step_index, t.task_index
             ) as messages
      from task t
      group by t.queue_name, t.delay, t.flow_slug
    )
  insert into pgflow.step_tasks as old (run_id, step_slug, task_index, flow_slug, message_id, input, queued_at)
  select t.run_id, t.step_slug, t.task_index, b.flow_slug, t.msg_id, t.input, create_other_tasks.as_of
  from batch b
  cross join lateral rows from (
    unnest(b.run_ids), unnest(b.step_slugs), unnest(b.task_indexes), unnest(b.inputs),
    pgflow.send_messages(b.queue_name, b.messages, b.delay)
  ) as t (run_id, step_slug, task_index, input, msg_id)
  on conflict (run_id, step_slug, task_index) do update
  set status = 'queued',
      message_id = excluded.message_id,
      attempts_before = old.attempts_count,
      error_message = null,
      queued_at = excluded.queued_at,
      failed_at = null;
  perform pgflow.create_waiting_tasks(create_other_tasks.steps, create_other_tasks.as_of);
end
$$;

-- The runs in which steps have closed: a failed step fails its run, and one without open steps is completed. A run's row is written
-- when it starts and when it ends, not in between, since every update writes the whole row, its input included, to the log. The
-- output of a run is {leaf_slug: output} over its completed leaf steps.
create function pgflow.end_runs(changes pgflow.step_change[], as_of timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  completed uuid[];
begin
  if exists (select from unnest(end_runs.changes) c where c.change = 'failed') then
    update pgflow.runs r
    set status = 'failed', error = failed.error, failed_at = as_of
    from (
      select c.run_id, min(c.error) as error from unnest(end_runs.changes) c where c.change = 'failed' group by c.run_id
    ) failed
    where r.run_id = failed.run_id;
  end if;

  select array_agg(c.run_id) into completed
  from (select distinct c.run_id from unnest(end_runs.changes) c where c.change in ('completed', 'skipped')) c
  where not exists (
    select from pgflow.step_states ss where ss.run_id = c.run_id and ss.status not in ('completed', 'skipped')
  );
  if completed is null then
    return;
  end if;
  update pgflow.runs r
  set status = 'completed',
      completed_at = as_of,
      output = (
        select coalesce(jsonb_object_agg(ss.step_slug, ss.output), '{}')
        from pgflow.step_states ss
        where ss.run_id = r.run_id
          and ss.status = 'completed'
          and not exists (
            select from pgflow.deps dependent where dependent.flow_slug = r.flow_slug and dependent.dep_slug = ss.step_slug
          )
      )
  where r.run_id = any (completed);
end
$$;

-- Closes the open tasks of runs that have ended and of steps that were skipped, and archives their messages.
create function pgflow.close_tasks(run_ids uuid[], skipped pgflow.step_key[] default '{}')
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  closed record;
begin
  if cardinality(run_ids) = 0 and cardinality(skipped) = 0 then
    return;
  end if;
  for closed in
    with
      -- Materialized: a task that a claim changes meanwhile is looked at again by the update, which a union would prevent.
      open as materialized (
        select t.run_id, t.step_slug, t.task_index, 'cancelled' as status, t.waits_for
        from pgflow.step_tasks t
        where t.run_id = any (run_ids) and t.status in ('waiting', 'queued', 'started')
        union all
        select t.run_id, t.step_slug, t.task_index, 'skipped', t.waits_for
        from unnest(skipped) k
        join pgflow.step_tasks t using (run_id, step_slug)
        where t.run_id <> all (run_ids) and t.status in ('waiting', 'queued', 'started')
      ),
      task as (
        update pgflow.step_tasks t
        set status = o.status, waits_for = null, due_at = null
        from open o
        where (t.run_id, t.step_slug, t.task_index) = (o.run_id, o.step_slug, o.task_index)
          and t.status in ('waiting', 'queued', 'started')
        returning t.flow_slug, t.message_id, o.run_id, o.step_slug, o.waits_for
      )
    select f.queue_name, array_agg(t.message_id) filter (where t.message_id is not null) as msg_ids,
           array_agg(row(t.run_id, t.step_slug)::pgflow.step_key) filter (where t.waits_for = 'signal') as waits
    from task t join pgflow.flows f using (flow_slug)
    group by f.queue_name
  loop
    if closed.msg_ids is not null then
      perform pgflow.archive_messages(closed.queue_name, closed.msg_ids);
    end if;
    if closed.waits is not null then
      perform pgflow.close_waits(closed.waits);
    end if;
  end loop;
end
$$;

-- Chapter 10: tasks are settled, in batches.
--
-- One lock order everywhere: run, step state, task. Settling locks the runs first and looks at every status after that.

create type pgflow.task_result as (
  run_id uuid,
  step_slug text,
  task_index int,
  attempt int,
  error text,
  retry_delay numeric,
  permanent boolean,
  uncounted boolean
);
comment on type pgflow.task_result is
  'How a task ended: failed where error is not null, else completed; its output stays in the JSON that it came in. An attempt that is null means the task as it stands; uncounted means that the failed attempt does not count against max_attempts.';

create type pgflow.settled_task as (
  n bigint,
  run_id uuid,
  step_slug text,
  task_index int,
  flow_slug text,
  message_id bigint,
  outcome text,
  is_item boolean,
  error text,
  retry_at timestamptz
);
comment on type pgflow.settled_task is
  'What became of a task, which is a map''s item or a single step; n is the place of its result in the batch. The outcome is completed, failed or retrying; or held, where another transaction has locked the run.';

-- Locks those of the runs that are started, and answers with them. Without `wait` it leaves out what somebody else holds;
-- else it waits for one run at a time, and holds no other meanwhile: all locks are taken at once, or let go.
create function pgflow.lock_runs(run_ids uuid[], wait boolean)
returns uuid[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  locked uuid[];
  missing uuid;
begin
  if wait and cardinality(run_ids) = 1 then
    return array(select r.run_id from pgflow.runs r where r.run_id = run_ids[1] and r.status = 'started' for no key update);
  end if;
  if not wait then
    return array(
      select r.run_id from pgflow.runs r
      where r.run_id = any (run_ids) and r.status = 'started'
      for no key update skip locked
    );
  end if;
  loop
    begin
      perform from pgflow.runs r where r.run_id = missing and r.status = 'started' for no key update;
      locked := pgflow.lock_runs(run_ids, wait => false);
      missing := (
        select r.run_id from pgflow.runs r
        where r.run_id = any (run_ids) and r.status = 'started' and r.run_id <> all (locked)
        limit 1
      );
      if missing is null then
        return locked;
      end if;
      raise sqlstate 'PT000'; -- what is locked is let go
    exception
      when sqlstate 'PT000' then null;
    end;
  end loop;
end
$$;

-- Settles a batch: tasks, their steps and all that follows, their runs. Answers with the tasks that it settled; a result
-- that names an older attempt, or whose task or run is closed, changes nothing. Without `wait`, runs that somebody else
-- holds are left alone; their results are answered as held. `outputs` is a JSON array with an object for each result, whose
-- `output` is read from there only where it is stored: a large one would be copied by each statement that it passes.
create function pgflow.settle(results pgflow.task_result[], wait boolean default true, outputs jsonb default '[]')
returns setof pgflow.settled_task
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  run_ids uuid[] := array(select distinct result.run_id from unnest(results) result where result.run_id is not null);
  locked uuid[] := pgflow.lock_runs(run_ids, wait);
  as_of timestamptz := pgflow.now();
  settled pgflow.settled_task[];
begin
  settled := array(select s from pgflow.record_results(locked, results, outputs, as_of) s);
  if cardinality(settled) > 0 then
    perform pgflow.advance(pgflow.changes_of(settled), as_of, outputs => outputs);
    perform pgflow.release_messages(settled);
  end if;
  return query select * from unnest(settled);
  if cardinality(locked) < cardinality(run_ids) and not wait then
    return query
      select r.ordinality, r.run_id, r.step_slug, r.task_index, run.flow_slug, null::bigint, 'held', null::boolean,
             null, null::timestamptz
      from unnest(results) with ordinality r
      join pgflow.runs run using (run_id)
      where r.run_id <> all (locked) and run.status = 'started';
  end if;
end
$$;

-- The tasks of `settle`: completed, failed, or queued again for another attempt. Of several results for one task the
-- first that is not stale counts. An error is cut to 10,000 characters. A task that fails without having been claimed has used an attempt, too.
create function pgflow.record_results(run_ids uuid[], results pgflow.task_result[], outputs jsonb, as_of timestamptz)
returns setof pgflow.settled_task
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with
      result as (
        select r.ordinality as n, t.run_id, t.step_slug, t.task_index, r.attempt, left(r.error, 10000) as error, r.uncounted,
               case
                 when r.error is null then 'completed'
                 when r.permanent or t.status = 'waiting' or used.attempts >= (
                   select o.max_attempts from pgflow.step_options o
                   where o.flow_slug = t.flow_slug and o.step_slug = t.step_slug
                 ) then 'failed'
                 else 'retrying'
               end as outcome,
               case when r.error is not null then
                 as_of + make_interval(secs => greatest(0, least(31536000, coalesce(
                   r.retry_delay,
                   (
                     select pgflow.calculate_retry_delay(o.base_delay, used.attempts)
                     from pgflow.step_options o
                     where o.flow_slug = t.flow_slug and o.step_slug = t.step_slug
                   )
                 )))::float8)
               end as retry_at
        from unnest(record_results.results) with ordinality r
        join pgflow.step_tasks t
          on (t.run_id, t.step_slug, t.task_index) = (r.run_id, r.step_slug, r.task_index)
        cross join lateral (
          select t.attempts_count - t.attempts_before
               + case t.status when 'queued' then 1 else 0 end - case when r.uncounted then 1 else 0 end
        ) as used (attempts)
        where r.run_id = any (record_results.run_ids) and case
          when r.attempt is null then t.status in ('waiting', 'queued', 'started')
          else t.status = 'started' and t.attempts_count = r.attempt
        end
      ),
      decided as (
        select distinct on (r.run_id, r.step_slug, r.task_index) r.*
        from result r
        order by r.run_id, r.step_slug, r.task_index, r.n
      )
    update pgflow.step_tasks t
    set status = case d.outcome when 'retrying' then 'queued' else d.outcome end,
        attempts_count = t.attempts_count + case when t.status = 'queued' and d.error is not null then 1 else 0 end,
        attempts_before = t.attempts_before + case when d.uncounted and d.error is not null then 1 else 0 end,
        output = case
          when t.input is not null and d.outcome = 'completed' then coalesce(outputs -> (d.n - 1)::int -> 'output', 'null')
        end,
        error_message = d.error,
        waits_for = null,
        due_at = null,
        completed_at = case d.outcome when 'completed' then as_of end,
        failed_at = case d.outcome when 'failed' then as_of end
    from decided d
    where (t.run_id, t.step_slug, t.task_index) = (d.run_id, d.step_slug, d.task_index)
      -- Again, of the row as it is once the update has its lock: a claim may have been faster.
      and case
        when d.attempt is null then t.status in ('waiting', 'queued', 'started')
        else t.status = 'started' and t.attempts_count = d.attempt
      end
    returning d.n, t.run_id, t.step_slug, t.task_index, t.flow_slug, t.message_id, d.outcome,
              t.input is not null, d.error, d.retry_at;
end
$$;

-- What settled tasks mean for their steps: a step whose last task completed completes, one with a task that failed for
-- good fails or is skipped.
create function pgflow.changes_of(settled pgflow.settled_task[])
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(row(c.*)::pgflow.step_change)
    from (
      select s.run_id, s.flow_slug, s.step_slug,
             bool_or(s.is_item) as is_map,
             count(*) filter (where s.outcome = 'completed')::int as completed,
             count(*) filter (where s.outcome = 'retrying')::int as retries,
             min(s.n) filter (where s.outcome = 'completed') as result_n,
             min(s.error) filter (where s.outcome = 'failed') as fatal,
             (array_agg(s.error order by s.n desc) filter (where s.outcome = 'retrying'))[1] as error,
             max(s.retry_at) filter (where s.outcome = 'retrying') as retry_at
      from unnest(changes_of.settled) s
      group by s.run_id, s.flow_slug, s.step_slug
    ) b
    cross join lateral (
      select case when b.fatal is not null then (
        select s.when_exhausted from pgflow.steps s where s.flow_slug = b.flow_slug and s.step_slug = b.step_slug
      ) end
      offset 0 -- else it is looked up anew wherever it is used, and so is the next
    ) as option (when_exhausted)
    cross join lateral (
      select option.when_exhausted, case
        when option.when_exhausted = 'fail' then 'failed'
        when b.fatal is not null then 'skipped'
        when not b.is_map and b.completed = 1 then 'completed'
        when b.completed = (
          select ss.remaining_tasks from pgflow.step_states ss where ss.run_id = b.run_id and ss.step_slug = b.step_slug
        ) then 'completed'
        else 'working'
      end
      offset 0
    ) as next (when_exhausted, change)
    cross join lateral (
      select b.run_id, b.flow_slug, b.step_slug, next.change,
             case when next.change = 'completed' and not b.is_map then b.result_n end as result_n,
             coalesce(b.fatal, b.error) as error,
             case next.change when 'skipped' then 'attempts_exhausted' end as skip_reason,
             next.when_exhausted = 'skip-cascade' as cascade,
             b.completed as tasks,
             null::int as items,
             -- A step that closes is not tried again, whatever else was in the batch.
             case next.change when 'working' then b.retries end as retries,
             case next.change when 'working' then b.retry_at end as retry_at,
             null::text as waits_for, null::timestamptz as due_at
    ) c
  );
end
$$;

-- The messages of `settle`: archived, or hidden until the next attempt; a wait has none, but has asked somebody. One that a claim holds at the moment cannot be
-- hidden; its task gets another, so that no failure loses its delay.
create function pgflow.release_messages(settled pgflow.settled_task[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  released record;
  hidden bigint[];
begin
  for released in
    select f.queue_name, f.flow_slug,
           array_agg(s.message_id) filter (where s.outcome <> 'retrying') as done,
           array_agg(row(s.run_id, s.step_slug)::pgflow.step_key) filter (where s.message_id is null) as waits,
           array_agg(s.message_id order by s.message_id) filter (where s.outcome = 'retrying') as retrying,
           array_agg(s.retry_at order by s.message_id) filter (where s.outcome = 'retrying') as until
    from unnest(settled) s join pgflow.flows f using (flow_slug)
    group by f.queue_name, f.flow_slug
  loop
    if released.done is not null then
      perform pgflow.archive_messages(released.queue_name, released.done);
    end if;
    if released.waits is not null then
      perform pgflow.close_waits(released.waits);
    end if;
    if released.retrying is not null then
      hidden := pgflow.hide_messages(released.queue_name, released.retrying, released.until);
      if cardinality(hidden) < cardinality(released.retrying) then
        perform pgflow.replace_messages(released.queue_name, array(
          select s from unnest(settled) s
          where s.flow_slug = released.flow_slug and s.outcome = 'retrying' and s.message_id <> all (hidden)
        ));
      end if;
    end if;
  end loop;
end
$$;

-- Gives retried tasks another message, hidden until then, unless the batch has closed them after all. The old messages
-- are archived when they are next claimed.
create function pgflow.replace_messages(queue_name text, retried pgflow.settled_task[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  msg_ids bigint[];
  until timestamptz[];
begin
  -- Not within the statement, since it changes tasks.
  perform pgflow.create_queue(queue_name) where to_regclass(format('pgmq.%I', 'q_' || queue_name)) is null;
  with
    batch as (
      select array_agg(r.run_id) as run_ids, array_agg(r.step_slug) as step_slugs, array_agg(r.task_index) as task_indexes,
             array_agg(r.retry_at) as until, array_agg(jsonb_build_object(
               'flow_slug', r.flow_slug, 'run_id', r.run_id, 'step_slug', r.step_slug, 'task_index', r.task_index
             )) as messages
      from unnest(retried) r
      join pgflow.step_tasks t using (run_id, step_slug, task_index)
      where t.status = 'queued'
    ),
    sent as materialized (
      select s.*
      from batch b
      cross join lateral rows from (
        unnest(b.run_ids), unnest(b.step_slugs), unnest(b.task_indexes), unnest(b.until),
        pgflow.send_messages(replace_messages.queue_name, b.messages, 0)
      ) as s (run_id, step_slug, task_index, retry_at, msg_id)
      where b.messages is not null
    ),
    task as (
      update pgflow.step_tasks t
      set message_id = s.msg_id
      from sent s
      where (t.run_id, t.step_slug, t.task_index) = (s.run_id, s.step_slug, s.task_index)
      returning s.msg_id, s.retry_at
    )
  select array_agg(t.msg_id), array_agg(t.retry_at) into msg_ids, until from task t;
  perform pgflow.hide_messages(queue_name, msg_ids, until);
end
$$;

-- Settles a batch of results, completed and failed mixed, of any runs and flows, in one transaction.
--   select * from pgflow.settle_tasks('[{"run_id": "…", "step_slug": "a", "task_index": 0, "attempt": 1, "output": 42}]');
-- A result has either `output` or `error`, with `retry_delay` (seconds, a year at most) or `permanent`, or `uncounted`: the
-- attempt does not count against max_attempts. The answer has a row for each result, in order. applied is false where it was stale, where `problem` says what is wrong with the result,
-- and, without `wait`, where held: another transaction has locked its run, and the result has to be sent again.
create function pgflow.settle_tasks(results jsonb, wait boolean default true)
returns table (
  run_id uuid, step_slug text, task_index int, attempt int, applied boolean, held boolean, problem text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  batch pgflow.task_result[];
  problems text[];
  settled bigint[];
  held bigint[];
begin
  if jsonb_typeof(results) <> 'array' then
    raise exception using
      errcode = 'PT400',
      message = format('the results are %s, not an array', jsonb_typeof(results)),
      hint = 'Give one object for each result: {"run_id", "step_slug", "task_index", "attempt", and "output" or "error"}.';
  end if;
  begin
    batch := array(
      select row(
        r ->> 'run_id', r ->> 'step_slug', r ->> 'task_index', r ->> 'attempt',
        case when r ? 'output' then null else coalesce(r ->> 'error', 'failed without a message') end,
        r ->> 'retry_delay', r ->> 'permanent', r ->> 'uncounted'
      )::pgflow.task_result
      from generate_series(0, jsonb_array_length(settle_tasks.results) - 1) as n
      cross join lateral (select settle_tasks.results -> n as r offset 0) as result -- once, and not into a file
      order by n
    );
  exception
    when data_exception then -- one of them cannot be read
      select array_agg(r.result order by r.n), array_agg(r.problem order by r.n) into batch, problems
      from pgflow.parsed_results(settle_tasks.results) r;
  end;
  if cardinality(batch) = 0 then
    return;
  end if;
  select array_agg(s.n) filter (where s.outcome <> 'held'), array_agg(s.n) filter (where s.outcome = 'held')
  into settled, held
  from pgflow.settle(batch, settle_tasks.wait, settle_tasks.results) s;
  return query
    select r.run_id, r.step_slug, r.task_index, r.attempt, s.n is not null, h.n is not null,
           coalesce(problems[r.ordinality], case
             when r.run_id is null or r.step_slug is null or r.task_index is null
             then 'run_id, step_slug or task_index is missing'
           end)
    from unnest(batch) with ordinality r
    left join unnest(settled) as s (n) on s.n = r.ordinality
    left join unnest(held) as h (n) on h.n = r.ordinality
    order by r.ordinality;
end
$$;
comment on function pgflow.settle_tasks is
  'Settles a batch of task results; tells for each whether it was applied, or why not.';

-- The results of `settle_tasks`, of which some cannot be read: such a one has a problem, and is empty, so that it settles
-- nothing.
create function pgflow.parsed_results(results jsonb)
returns table (n bigint, result pgflow.task_result, problem text)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select e.n,
         case when p.problem is null then row(
           e.r ->> 'run_id', e.r ->> 'step_slug', e.r ->> 'task_index', e.r ->> 'attempt',
           case when e.r ? 'output' then null else coalesce(e.r ->> 'error', 'failed without a message') end,
           e.r ->> 'retry_delay', e.r ->> 'permanent', e.r ->> 'uncounted'
         )::pgflow.task_result end,
         p.problem
  from jsonb_array_elements(parsed_results.results) with ordinality as e (r, n)
  cross join lateral (
    select case
      when jsonb_typeof(e.r) <> 'object' then 'it is not an object'
      when pgflow.is_readable(e.r ->> 'run_id', 'uuid') is not true then 'run_id is not a uuid'
      when jsonb_typeof(e.r -> 'step_slug') is distinct from 'string' then 'step_slug is not a text'
      when pgflow.is_readable(e.r ->> 'task_index', 'int') is not true then 'task_index is not a whole number'
      when pgflow.is_readable(e.r ->> 'attempt', 'int') is false then 'attempt is not a whole number'
      when pgflow.is_readable(e.r ->> 'retry_delay', 'numeric') is false then 'retry_delay is not a number of seconds'
      when pgflow.is_readable(e.r ->> 'permanent', 'boolean') is false then 'permanent is not true or false'
      when pgflow.is_readable(e.r ->> 'uncounted', 'boolean') is false then 'uncounted is not true or false'
    end
  ) as p (problem);
end
$$;

-- Whether a text can be read as a value of a type; null for null. (As pg_input_is_valid, which Postgres has from version 16 on.)
create function pgflow.is_readable(value text, type regtype)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if value is null then
    return null;
  end if;
  execute format('select %L::%s', value, type);
  return true;
exception
  when data_exception then
    return false;
end
$$;

-- Settles one task and answers with its row as it then is.
create function pgflow.apply_result(result pgflow.task_result, output jsonb default null)
returns setof pgflow.step_tasks
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.settle(array[result], outputs => jsonb_build_array(jsonb_build_object('output', apply_result.output)));
  if found then
    return query select t.* from pgflow.step_tasks t
    where (t.run_id, t.step_slug, t.task_index) = (result.run_id, result.step_slug, result.task_index);
  end if;
end
$$;

-- Completes a task as it stands, whatever its attempt.
--   select * from pgflow.complete_task('…', 'report', 0, '{"ok": true}');
create function pgflow.complete_task(run_id uuid, step_slug text, task_index int, output jsonb)
returns setof pgflow.step_tasks
language sql
set search_path = pg_catalog, pg_temp
as $$
  select * from pgflow.apply_result(
    row(
      complete_task.run_id, complete_task.step_slug, complete_task.task_index, null, null, null, null, null
    )::pgflow.task_result,
    complete_task.output
  )
$$;
comment on function pgflow.complete_task is 'Completes one task as it stands; no row where it is closed already.';

-- Fails a task as it stands. That counts as an attempt, whether the task was claimed or not: another one follows while
-- there are any left. For good at once: pgflow.settle_tasks('[{…, "error": "…", "permanent": true}]'), without `attempt`.
--   select * from pgflow.fail_task('…', 'report', 0, 'the disk is full');
create function pgflow.fail_task(run_id uuid, step_slug text, task_index int, error_message text)
returns setof pgflow.step_tasks
language sql
set search_path = pg_catalog, pg_temp
as $$
  select * from pgflow.apply_result(row(
    fail_task.run_id, fail_task.step_slug, fail_task.task_index, null,
    coalesce(fail_task.error_message, 'failed without a message'), null, null, null
  )::pgflow.task_result)
$$;
comment on function pgflow.fail_task is 'Fails one task as it stands; it is retried while it has attempts left.';


-- Chapter 11: tasks are claimed.
--
-- Claiming waits for nobody: it skips what is locked, messages, tasks and runs alike.

create type pgflow.step_task_record as (
  flow_slug text,
  run_id uuid,
  step_slug text,
  input jsonb,
  msg_id bigint,
  task_index int,
  attempt int,
  timeout int,
  refs jsonb
);
comment on type pgflow.step_task_record is
  'A claimed task: attempt is what its settlement must name, timeout is in seconds, input is {"run": …, "<dep>": …} or a map''s item; refs has the version of each value that is left out of it, for fetch_value.';

-- Claims up to `quantity` tasks of the flows. Each is hidden from others for `lease` seconds; a task that is not settled
-- or extended by then can be claimed again, as its next attempt.
--   select * from pgflow.claim_tasks(array['analyze_document'], 10, gen_random_uuid(), lease => 30);
-- With an `inline_limit`, values of more bytes are left out of the input and named in refs, and so is all that a map's
-- task has beside its item. What it claims at once fits into one JSON value, which Postgres limits to 256 MB.
create function pgflow.claim_tasks(
  flow_slugs text[],
  quantity int,
  worker_id uuid,
  lease int default 30,
  inline_limit int default null
)
returns setof pgflow.step_task_record
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  messages pgflow.message[] := pgflow.read_messages(claim_tasks.flow_slugs, claim_tasks.quantity, claim_tasks.lease);
begin
  if cardinality(messages) = 0 then
    return;
  end if;
  if claim_tasks.inline_limit is null or exists (
    select from pgflow.steps s where s.flow_slug = any (claim_tasks.flow_slugs) and s.step_type = 'map'
  ) then
    messages := pgflow.messages_within(messages, 128000000, claim_tasks.inline_limit);
  end if;
  -- A message read for the first time belongs to a task that is open and has attempts left.
  if exists (select from unnest(messages) m where m.read_ct > 1) then
    perform pgflow.end_dead_tasks(messages);
  end if;
  return query
    select * from pgflow.begin_attempts(messages, claim_tasks.worker_id, pgflow.now(), claim_tasks.inline_limit);
end
$$;
comment on function pgflow.claim_tasks is 'Claims tasks of flows for a worker, each under a lease of some seconds.';

-- The first of the messages that were read, as many as have inputs of up to `bytes` together, and at least one. The others
-- are visible again at once, before those that were sent later. Sizes come from how values are stored, without reading them: a compressed one counts as the
-- most that it may have.
create function pgflow.messages_within(messages pgflow.message[], bytes bigint, inline_limit int)
returns pgflow.message[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  within pgflow.message[];
  rest record;
begin
  -- Mostly they are small; 256 is the most that a value may be compressed.
  if inline_limit is not null and 256 * (
    select coalesce(sum(pg_column_size(t.input)), 0)
    from unnest(messages) m join pgflow.step_tasks t using (run_id, step_slug, task_index)
  ) <= messages_within.bytes then
    return messages;
  end if;
  within := array(
    select m.message
    from (
      select row(m.queue_name, m.msg_id, m.read_ct, m.run_id, m.step_slug, m.task_index)::pgflow.message as message, m.ordinality,
             sum(coalesce(size.bytes, 0)) over (order by m.ordinality) as total
      from unnest(messages) with ordinality m
      left join pgflow.step_tasks t using (run_id, step_slug, task_index)
      left join lateral (
        select sum(pg_column_size(one.value)::bigint * case pg_column_compression(one.value)
                 when 'pglz' then 100 when 'lz4' then 256 else 1
               end) as bytes
        from (
          select t.input as value
          union all
          select r.input from pgflow.runs r
          where t.input is null and messages_within.inline_limit is null and r.run_id = t.run_id
          union all
          select dep.output
          from pgflow.deps d
          join pgflow.step_states dep on dep.run_id = t.run_id and dep.step_slug = d.dep_slug
          where t.input is null and messages_within.inline_limit is null
            and d.flow_slug = t.flow_slug and d.step_slug = t.step_slug
        ) one
      ) size on true
    ) m
    where m.total <= messages_within.bytes or m.ordinality = 1
    order by m.ordinality
  );
  if cardinality(within) < cardinality(messages) then
    for rest in
      select m.queue_name, array_agg(m.msg_id) as msg_ids, array_agg(null::timestamptz) as until
      from unnest(messages) with ordinality m
      where m.ordinality > cardinality(within)
      group by m.queue_name
    loop
      perform pgflow.hide_messages(rest.queue_name, rest.msg_ids, rest.until);
    end loop;
  end if;
  return within;
end
$$;

-- Names what a value is as of the time at which its step completed or its run started.
create function pgflow.version_of(at timestamptz)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select extract(epoch from at)::text
$$;

-- Counts an attempt of each task whose message was read, and answers with what its handler needs. Rows come from the
-- locked update, so that no task goes to two workers; a task that is being settled at the moment is left alone.
create function pgflow.begin_attempts(messages pgflow.message[], worker_id uuid, as_of timestamptz, inline_limit int)
returns setof pgflow.step_task_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with
      open as (
        select t.run_id, t.step_slug, t.task_index, o.timeout
        from unnest(begin_attempts.messages) m
        join pgflow.step_tasks t using (run_id, step_slug, task_index)
        cross join lateral (
          select o.max_attempts, o.timeout from pgflow.step_options o
          where o.flow_slug = t.flow_slug and o.step_slug = t.step_slug
          offset 0 -- else the view is joined first, for all flows
        ) o
        where t.message_id = m.msg_id
          and t.status in ('queued', 'started')
          and t.attempts_count - t.attempts_before < o.max_attempts
        order by t.run_id, t.step_slug, t.task_index
        for no key update of t skip locked
      ),
      claimed as (
        update pgflow.step_tasks t
        set status = 'started',
            attempts_count = t.attempts_count + 1,
            started_at = begin_attempts.as_of,
            last_worker_id = begin_attempts.worker_id
        from open o
        where (t.run_id, t.step_slug, t.task_index) = (o.run_id, o.step_slug, o.task_index)
        returning t.*, o.timeout
      )
    select c.flow_slug, c.run_id, c.step_slug, coalesce(c.input, v.input, '{}'),
           c.message_id, c.task_index, c.attempts_count, c.timeout, v.refs
    from claimed c
    cross join lateral (
      select jsonb_object_agg(value.name, value.value) filter (where not value.is_left_out) as input,
             jsonb_object_agg(value.name, pgflow.version_of(value.at)) filter (where value.is_left_out) as refs
      from (
        select one.*, case
            when begin_attempts.inline_limit is null then false
            -- The stored size is known without reading the value, but it may be compressed.
            else c.input is not null or pg_column_size(one.value) > begin_attempts.inline_limit
              or octet_length(one.value::text) > begin_attempts.inline_limit
          end as is_left_out
        from (
          select 'run' as name, r.input as value, r.started_at as at
          from pgflow.runs r
          where r.run_id = c.run_id
          union all
          select d.dep_slug, dep.output, dep.completed_at
          from pgflow.deps d
          join pgflow.step_states dep on dep.run_id = c.run_id and dep.step_slug = d.dep_slug
          where d.flow_slug = c.flow_slug and d.step_slug = c.step_slug and dep.status = 'completed'
        ) one
        offset 0 -- else each value is written as text twice
      ) value
      where c.input is null or begin_attempts.inline_limit is not null
    ) v
    order by c.message_id;
end
$$;

-- Of messages that were read, ends what cannot be claimed: a task that has no attempt left fails for good, because its
-- last one's lease ran out or its options were lowered; the message of a task that is closed already is archived.
create function pgflow.end_dead_tasks(messages pgflow.message[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  expired pgflow.task_result[];
  orphans record;
begin
  select array_agg(row(
    t.run_id, t.step_slug, t.task_index, case t.status when 'started' then t.attempts_count end,
    case t.status
      when 'started' then 'lease expired: the worker was lost'
      else coalesce(t.error_message, 'no attempts left')
    end,
    null, true, null
  )::pgflow.task_result)
  into expired
  from unnest(messages) m
  join pgflow.step_tasks t using (run_id, step_slug, task_index)
  where t.message_id = m.msg_id
    and t.status in ('queued', 'started')
    and t.attempts_count - t.attempts_before >= (
      select o.max_attempts from pgflow.step_options o where o.flow_slug = t.flow_slug and o.step_slug = t.step_slug
    );
  if expired is not null then
    perform pgflow.settle(expired, wait => false);
  end if;

  for orphans in
    select m.queue_name, array_agg(m.msg_id) as msg_ids
    from unnest(messages) m
    where not exists (
      select from pgflow.step_tasks t
      where (t.run_id, t.step_slug, t.task_index) = (m.run_id, m.step_slug, m.task_index)
        and t.message_id = m.msg_id
        and t.status in ('queued', 'started')
    )
    group by m.queue_name
  loop
    perform pgflow.archive_messages(orphans.queue_name, orphans.msg_ids);
  end loop;
end
$$;

-- Claims tasks of one queue, waiting for them up to max_poll_seconds. Each message is hidden for its step's timeout plus
-- two seconds, whatever `vt` says; a `qty` of 0 answers at once, with nothing. For workers written in SQL or by hand; ours
-- use claim_tasks, whose leases they extend.
--   select * from pgflow.poll_for_tasks('analyze_document', vt => 30, qty => 10, max_poll_seconds => 0);
create function pgflow.poll_for_tasks(
  queue_name text,
  vt int,
  qty int,
  max_poll_seconds int default 5,
  poll_interval_ms int default 100
)
returns setof pgflow.step_task_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  flow_slug text := (select f.flow_slug from pgflow.flows f where f.queue_name = poll_for_tasks.queue_name);
  deadline timestamptz := clock_timestamp() + make_interval(secs => max_poll_seconds);
  tasks pgflow.step_task_record[];
begin
  if flow_slug is null then
    raise exception using
      errcode = 'PT404',
      message = format('no flow has the queue "%s"', queue_name),
      hint = 'The queue of each flow: select flow_slug, queue_name from pgflow.flows.';
  end if;
  loop
    tasks := array(select t from pgflow.claim_tasks(array[flow_slug], qty, null, case vt when 0 then 1 else vt end) t);
    exit when cardinality(tasks) > 0 or qty = 0 or clock_timestamp() >= deadline;
    perform pg_sleep(poll_interval_ms / 1000.0);
  end loop;
  perform pgflow.hide_messages(
    queue_name, array_agg(t.msg_id), array_agg(clock_timestamp() + make_interval(secs => t.timeout + 2.0))
  ) from unnest(tasks) t;
  return query select * from unnest(tasks);
end
$$;
comment on function pgflow.poll_for_tasks is 'Claims tasks of one queue, waiting for them if there are none.';

-- Chapter 12: what workers ask for.
--
-- A worker needs no session: each call stands for itself. It settles and claims in one call, and beats while it holds
-- tasks. Leases do not depend on the table of workers; it is for people to look at, and says who waits for tasks.

-- Settles a batch and claims the next, in one transaction and one round trip: what a busy worker does.
--   select * from pgflow.settle_and_claim('[…]', array['analyze_document'], 10, '…');
-- JSON arrays: `stale` has the results that changed nothing, with a `problem` where one cannot be read; `held` those whose
-- runs another transaction has locked, to be sent again; `tasks` the claimed tasks. It waits for nobody. A failed result may
-- have `thrown`, with name, message and stack. A worker that says `waiting` and gets no task is notified of the next ones.
create function pgflow.settle_and_claim(
  results jsonb,
  flow_slugs text[],
  quantity int,
  worker_id uuid,
  lease int default 30,
  inline_limit int default null,
  waiting boolean default false,
  out stale jsonb,
  out held jsonb,
  out tasks jsonb
)
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
as $$
declare
  applied bigint[];
  settled uuid[];
begin
  stale := '[]';
  held := '[]';
  if results <> '[]' then
    select coalesce(jsonb_agg(
             jsonb_build_object(
               'run_id', s.run_id, 'step_slug', s.step_slug, 'task_index', s.task_index, 'attempt', s.attempt
             ) || case when s.problem is null then '{}' else jsonb_build_object('problem', s.problem) end
           ) filter (where not s.applied and not s.held), '[]'),
           coalesce(jsonb_agg(
             jsonb_build_object(
               'run_id', s.run_id, 'step_slug', s.step_slug, 'task_index', s.task_index, 'attempt', s.attempt
             )
           ) filter (where s.held), '[]'),
           array_agg(s.n) filter (where s.applied),
           array_agg(s.run_id) filter (where s.applied)
    into stale, held, applied, settled
    from pgflow.settle_tasks(results, wait => false) with ordinality
      as s (run_id, step_slug, task_index, attempt, applied, held, problem, n);
    if results @? '$[*].thrown' then
      perform pgflow.store_errors(results, applied);
    end if;
  end if;
  tasks := (
    select coalesce(jsonb_agg(to_jsonb(t)), '[]')
    from pgflow.claim_tasks(
      case
        when cardinality(flow_slugs) <= 20 then flow_slugs
        else pgflow.flows_to_ask(flow_slugs, settled, worker_id)
      end,
      quantity, worker_id, lease, inline_limit
    ) t
  );
  perform pgflow.note_worker(worker_id, waiting and tasks = '[]');
end
$$;
comment on function pgflow.settle_and_claim is 'Settles a batch of results and claims the next tasks, in one round trip.';

-- The flows that a call for many flows asks for tasks. Each costs some microseconds, so a call that has settled results asks those
-- of the settled runs, whose next steps may have started, and ten others by chance. Where nothing was settled, and where this
-- session has not asked all for the worker for a second, it asks all.
create function pgflow.flows_to_ask(flow_slugs text[], settled uuid[], worker_id uuid)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  at float8 := extract(epoch from clock_timestamp());
  asked text := current_setting('pgflow.all_flows_asked', true);
begin
  if settled is null or asked is null or split_part(asked, ' ', 1) is distinct from worker_id::text
    or split_part(asked, ' ', 2)::float8 < at - 1
  then
    perform set_config('pgflow.all_flows_asked', concat(worker_id, ' ', at), false);
    return flow_slugs;
  end if;
  return array(
    select r.flow_slug from pgflow.runs r where r.run_id = any (settled) and r.flow_slug = any (flow_slugs)
    union
    select flow_slugs[1 + floor(random() * cardinality(flow_slugs))::int] from generate_series(1, 10)
  );
end
$$;

-- Keeps what was thrown with the tasks of failed results that were applied, by their places in the batch; of more than
-- 64 KB, its beginning.
create function pgflow.store_errors(results jsonb, applied bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
begin
  update pgflow.step_tasks t
  set last_error = case
      when octet_length(r.thrown::text) <= 65536 then r.thrown
      else jsonb_build_object(
        'name', left(r.thrown ->> 'name', 200), 'message', left(r.thrown ->> 'message', 10000),
        'stack', left(r.thrown ->> 'stack', 10000)
      )
    end
  from unnest(applied) as a (n)
  cross join lateral (select results -> (a.n - 1)::int) as e (result)
  cross join lateral jsonb_to_record(e.result) as r (run_id uuid, step_slug text, task_index int, thrown jsonb)
  where (t.run_id, t.step_slug, t.task_index) = (r.run_id, r.step_slug, r.task_index)
    and r.thrown is not null
    and t.error_message is not null;
end
$$;

-- Extends the leases of claimed tasks: each is hidden for `lease` seconds from now on.
--   select * from pgflow.extend_leases('[{"run_id": "…", "step_slug": "a", "task_index": 0, "attempt": 1}]');
-- A task that is no longer this attempt's answers active = false: its handler should stop. The status is the task's,
-- null where another attempt has it.
create function pgflow.extend_leases(tasks jsonb, lease int default 30)
returns table (run_id uuid, step_slug text, task_index int, attempt int, active boolean, status text)
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
#variable_conflict use_column
declare
  held record;
begin
  if lease is null or lease < 0 then
    raise exception using
      errcode = 'PT400', message = 'lease is not a number of seconds', hint = 'Give lease in whole seconds; 0 ends it.';
  end if;
  for held in
    with task as (
      select t.flow_slug, t.message_id
      from jsonb_to_recordset(tasks) as a (run_id uuid, step_slug text, task_index int, attempt int)
      join pgflow.step_tasks t using (run_id, step_slug, task_index)
      where t.status = 'started' and t.attempts_count = a.attempt
      for share of t skip locked -- the message of a task that is being settled is not ours to hide
    )
    select f.queue_name, array_agg(t.message_id) as msg_ids,
           array_agg(clock_timestamp() + make_interval(secs => lease)) as until
    from task t join pgflow.flows f using (flow_slug)
    group by f.queue_name
  loop
    perform pgflow.hide_messages(held.queue_name, held.msg_ids, held.until);
  end loop;
  return query
    select a.run_id, a.step_slug, a.task_index, a.attempt, coalesce(t.status = 'started', false), t.status
    from jsonb_to_recordset(tasks) as a (run_id uuid, step_slug text, task_index int, attempt int)
    left join pgflow.step_tasks t
      on (t.run_id, t.step_slug, t.task_index, t.attempts_count) = (a.run_id, a.step_slug, a.task_index, a.attempt);
end
$$;
comment on function pgflow.extend_leases is 'Extends leases by some seconds from now; tells which tasks are still the caller''s.';

-- Gives claimed tasks back, for others to claim at once, before those that were sent later; the attempt does not count as one.
-- Answers how many it were.
--   select pgflow.hand_back('[{"run_id": "…", "step_slug": "a", "task_index": 0, "attempt": 1}]');
create function pgflow.hand_back(tasks jsonb)
returns int
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  returned record;
  quantity int := 0;
begin
  for returned in
    with
      held as (
        select t.run_id, t.step_slug, t.task_index
        from jsonb_to_recordset(tasks) as a (run_id uuid, step_slug text, task_index int, attempt int)
        join pgflow.step_tasks t using (run_id, step_slug, task_index)
        where t.status = 'started' and t.attempts_count = a.attempt
        order by t.run_id, t.step_slug, t.task_index
        for no key update of t skip locked
      ),
      task as (
        update pgflow.step_tasks t
        set status = 'queued', attempts_before = t.attempts_before + 1
        from held h
        where (t.run_id, t.step_slug, t.task_index) = (h.run_id, h.step_slug, h.task_index)
        returning t.run_id, t.flow_slug, t.message_id
      )
    select f.queue_name, array_agg(t.message_id) as msg_ids, array_agg(null::timestamptz) as until,
           array_agg(t.run_id) as run_ids
    from task t join pgflow.flows f using (flow_slug)
    group by f.queue_name
  loop
    perform pgflow.hide_messages(returned.queue_name, returned.msg_ids, returned.until);
    perform pgflow.notify_workers(returned.run_ids);
    quantity := quantity + cardinality(returned.msg_ids);
  end loop;
  return quantity;
end
$$;
comment on function pgflow.hand_back is 'Gives claimed tasks back at once; the attempt does not count.';

-- Keeps how far handlers are as the progress of their steps: {"value": …, "data": …}, and of a map also the task_index.
-- What the engine keeps there of a map (done, total) stays. An attempt that is no longer the task's reports nothing.
-- Answers with the tasks whose runs another transaction has locked, as a JSON array: what they report is not kept.
--   select pgflow.report_progress('[{"run_id": "…", "step_slug": "a", "task_index": 0, "attempt": 1, "progress": {"value": 0.5}}]');
create function pgflow.report_progress(reports jsonb)
returns jsonb
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  locked uuid[] := pgflow.lock_runs(
    array(select distinct (report ->> 'run_id')::uuid from jsonb_array_elements(reports) report), wait => false
  );
begin
  with
    latest as (
      select distinct on (t.run_id, t.step_slug) t.run_id, t.step_slug, e.report -> 'progress' as progress
      from jsonb_array_elements(reports) with ordinality as e (report, n)
      join pgflow.step_tasks t
        on t.run_id = (e.report ->> 'run_id')::uuid and t.step_slug = e.report ->> 'step_slug'
        and t.task_index = (e.report ->> 'task_index')::int
      where t.run_id = any (locked)
        and t.status = 'started' and t.attempts_count = (e.report ->> 'attempt')::int
      order by t.run_id, t.step_slug, e.n desc
    )
  update pgflow.step_states ss
  set progress = l.progress || case jsonb_typeof(ss.progress)
      when 'object' then ss.progress - array['value', 'data', 'task_index']
      else '{}'
    end
  from latest l
  where (ss.run_id, ss.step_slug) = (l.run_id, l.step_slug) and ss.status = 'started';

  return (
    select coalesce(jsonb_agg(e.report - 'progress'), '[]')
    from jsonb_array_elements(reports) as e (report)
    join pgflow.runs r on r.run_id = (e.report ->> 'run_id')::uuid
    where r.status = 'started' and r.run_id <> all (locked)
  );
end
$$;
comment on function pgflow.report_progress is 'Keeps the latest progress of handlers with their steps; it becomes step:progress.';

-- A value that a claim left out: the input of a run (`run`), or the output of a step. The version is that of the claim's
-- refs; under it the value never changes.
--   select pgflow.fetch_value('…', 'toc', '1750000000.123456');
create function pgflow.fetch_value(run_id uuid, name text, version text)
returns jsonb
language plpgsql
stable
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  value jsonb;
begin
  if fetch_value.name = 'run' then
    select r.input into value from pgflow.runs r
    where r.run_id = fetch_value.run_id and pgflow.version_of(r.started_at) = fetch_value.version;
  else
    select ss.output into value from pgflow.step_states ss
    where ss.run_id = fetch_value.run_id and ss.step_slug = fetch_value.name and ss.status = 'completed'
      and pgflow.version_of(ss.completed_at) = fetch_value.version;
  end if;
  if value is null then
    raise exception using
      errcode = 'PT404',
      message = format('the value "%s" of run %s is gone', fetch_value.name, fetch_value.run_id),
      hint = 'The run was deleted or changed by hand.';
  end if;
  return value;
end
$$;
comment on function pgflow.fetch_value is 'A value that a claim left out of an input.';

-- Notifies workers that wait for tasks of the runs' flows; `pgflow_tasks` names the flow. NOTIFY takes a lock of the
-- whole database at commit, so it is used only while somebody waits. A worker that begins to wait at this moment may
-- miss it: it polls all the same.
create function pgflow.notify_workers(run_ids uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
begin
  if exists (select from pgflow.workers w where w.waiting_until > as_of) then
    perform pg_notify('pgflow_tasks', flow.flow_slug)
    from (select distinct r.flow_slug from unnest(run_ids) run_id join pgflow.runs r using (run_id)) flow
    where exists (
      select from pgflow.workers w where w.waiting_until > as_of and flow.flow_slug = any (w.flow_slugs)
    );
  end if;
end
$$;

-- Lists a worker that has started.
create function pgflow.register_worker(worker_id uuid, name text, flow_slugs text[])
returns void
language sql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
as $$
  insert into pgflow.workers (worker_id, name, flow_slugs, started_at, last_heartbeat_at)
  values (register_worker.worker_id, register_worker.name, register_worker.flow_slugs, pgflow.now(), pgflow.now())
$$;
comment on function pgflow.register_worker is 'Lists a worker that has started.';

-- Notes that a worker is alive, and whether it waits to be notified, at most every few seconds.
create function pgflow.note_worker(worker_id uuid, is_waiting boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
begin
  update pgflow.workers w
  set last_heartbeat_at = as_of, waiting_until = case when is_waiting then as_of + interval '5 seconds' end
  where w.worker_id = note_worker.worker_id
    and (
      w.last_heartbeat_at < as_of - interval '5 seconds'
      or is_waiting <> (w.waiting_until is not null)
      or w.waiting_until < as_of + interval '2 seconds'
    );
end
$$;

-- What a worker that holds tasks calls every few seconds: it is alive, and extends their leases. Answers as
-- extend_leases does.
--   select * from pgflow.heartbeat('…', '[{"run_id": "…", "step_slug": "a", "task_index": 0, "attempt": 1}]', lease => 30);
create function pgflow.heartbeat(worker_id uuid, tasks jsonb default '[]', lease int default 30)
returns table (run_id uuid, step_slug text, task_index int, attempt int, active boolean, status text)
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
as $$
begin
  update pgflow.workers w set last_heartbeat_at = pgflow.now() where w.worker_id = heartbeat.worker_id;
  return query select * from pgflow.extend_leases(heartbeat.tasks, heartbeat.lease);
end
$$;
comment on function pgflow.heartbeat is 'Notes that a worker is alive and extends its leases; tells which tasks are still its own.';

create function pgflow.stop_worker(worker_id uuid)
returns void
language sql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
as $$
  update pgflow.workers w set stopped_at = pgflow.now(), waiting_until = null where w.worker_id = stop_worker.worker_id
$$;
comment on function pgflow.stop_worker is 'Notes that a worker has stopped.';

-- Chapter 13: a run is cancelled, goes on after it ended, or is erased with its owner.

-- Cancels a run and closes all that is open under it. Cancelling it again changes nothing. A reason has up to 10,000
-- characters.
--   select * from pgflow.cancel_run('…', 'no longer needed');
create function pgflow.cancel_run(run_id uuid, reason text default null)
returns pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
#variable_conflict use_column
declare
  run pgflow.runs := pgflow.locked_run(cancel_run.run_id);
begin
  if length(cancel_run.reason) > 10000 then
    raise exception using
      errcode = 'PT413',
      message = format('a reason of %s characters is too long', length(cancel_run.reason)),
      hint = 'Give a reason of 10,000 characters at most.';
  end if;
  if run.status = 'cancelled' then
    return run;
  end if;
  if run.status <> 'started' then
    raise exception using
      errcode = 'PT409',
      message = format('run %s cannot be cancelled: it has %s', run.run_id, run.status),
      hint = 'Only a run that is started can be cancelled.';
  end if;
  update pgflow.step_states ss set status = 'cancelled'
  where ss.run_id = run.run_id and ss.status in ('created', 'started');
  perform pgflow.close_tasks(array[run.run_id]);
  update pgflow.runs r set status = 'cancelled', error = cancel_run.reason, cancelled_at = pgflow.now()
  where r.run_id = run.run_id
  returning * into run;
  return run;
end
$$;
comment on function pgflow.cancel_run is 'Cancels a run, its steps and its tasks; the reason becomes its error.';

-- Lets a failed or cancelled run go on: its failed and cancelled steps run again, with all their attempts; completed
-- steps, and completed items of maps, keep their outputs.
--   select * from pgflow.retry_run('…');
create function pgflow.retry_run(run_id uuid)
returns pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
#variable_conflict use_column
declare
  run pgflow.runs := pgflow.locked_run(retry_run.run_id);
  as_of timestamptz := pgflow.now();
  skips pgflow.step_change[] := pgflow.cascading_skips(run.run_id);
  ready pgflow.step_key[];
begin
  if run.status not in ('failed', 'cancelled') then
    raise exception using
      errcode = 'PT409',
      message = format('run %s cannot be retried: it is %s', run.run_id, run.status),
      hint = 'Only a run that has failed or was cancelled can be retried.';
  end if;
  with reopened as (
    update pgflow.step_states ss
    set status = 'created',
        remaining_deps = (
          select count(*) from pgflow.deps d
          join pgflow.step_states dep on dep.run_id = ss.run_id and dep.step_slug = d.dep_slug
          where d.flow_slug = ss.flow_slug and d.step_slug = ss.step_slug
            and (dep.status not in ('completed', 'skipped') or dep.step_slug in (select s.step_slug from unnest(skips) s))
        ),
        initial_tasks = null, remaining_tasks = null, error = null, progress = null, retries = 0, retry_at = null,
        started_at = null, failed_at = null, waits_for = null, due_at = null
    where ss.run_id = run.run_id and ss.status in ('failed', 'cancelled')
    returning run_id, step_slug, remaining_deps
  )
  select array_agg(row(run_id, step_slug)::pgflow.step_key) filter (where remaining_deps = 0) into ready from reopened;
  update pgflow.runs r
  set status = 'started', error = null, failed_at = null, cancelled_at = null
  where r.run_id = run.run_id;
  perform pgflow.advance(pgflow.decide(ready, as_of) || pgflow.cascade_skips(skips), as_of);
  select r.* into run from pgflow.runs r where r.run_id = run.run_id;
  return run;
end
$$;
comment on function pgflow.retry_run is 'Lets a failed or cancelled run go on from where it ended.';

-- The skipped steps of a run whose dependents do not run either. Those that were skipped while the run failed have
-- dependents that were cancelled, not skipped.
create function pgflow.cascading_skips(run_id uuid)
returns pgflow.step_change[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(row(skipped.*)::pgflow.step_change), '{}')
  from pgflow.step_states ss
  join pgflow.steps s using (flow_slug, step_slug)
  cross join lateral (
    select ss.run_id, ss.flow_slug, ss.step_slug, 'skipped' as change, null::bigint as result_n, null as error, ss.skip_reason,
           true as cascade, null::int as tasks, null::int as items, 0 as retries, null::timestamptz as retry_at, null::text as waits_for,
           null::timestamptz as due_at
  ) skipped
  where ss.run_id = cascading_skips.run_id
    and ss.status = 'skipped'
    and case ss.skip_reason
      when 'condition_unmet' then s.when_unmet = 'skip-cascade'
      when 'attempts_exhausted' then s.when_exhausted = 'skip-cascade'
      when 'timed_out' then s.when_timed_out = 'skip-cascade'
      else ss.skip_reason = 'dep_skipped'
    end
$$;

-- Erases what a deleted user leaves: their schedules, their runs, with inputs, outputs, events, watches and idempotency keys, and their id where
-- they have acted in the runs of others. Runs that go on are deleted, too, without being cancelled first: workers learn from
-- their next heartbeat that the task is gone. Answers how many runs it has deleted, up to `quantity`; call it until that is 0
-- where a user has more than some 10,000.
--   select pgflow.forget_owner('…');
create function pgflow.forget_owner(owner_id uuid, quantity int default null)
returns bigint
language plpgsql
security definer -- the service role has no rights on the tables
set search_path = pg_catalog, pg_temp
as $$
declare
  run_ids uuid[];
begin
  if forget_owner.owner_id is null then
    raise exception using
      errcode = 'PT400', message = 'the owner is missing', hint = 'Give the id of a user: runs of nobody are not erased this way.';
  end if;
  -- One at a time: each erases the traces of its user in the runs of others, which these may be erasing.
  perform pg_advisory_xact_lock(hashtextextended('pgflow.forget_owner', 0));
  -- Before any run is locked, as by a user who looks at their list and decides, in one transaction.
  delete from pgflow.inbox_watches w where w.user_id = forget_owner.owner_id;
  delete from pgflow.schedules s where s.owner_id = forget_owner.owner_id; -- before runs, as where they are started
  run_ids := array(
    select r.run_id
    from (
      select mine.run_id from pgflow.runs mine where mine.owner_id = forget_owner.owner_id limit forget_owner.quantity
    ) chosen
    join pgflow.runs r using (run_id)
    order by r.run_id
    for update of r
  );
  perform pgflow.close_tasks(run_ids);
  delete from pgflow.runs r where r.run_id = any (run_ids);
  delete from pgflow.wait_assignees w where w.user_id = forget_owner.owner_id;
  -- Keys of runs that are somebody else's by now, and what the user did in runs of others.
  delete from pgflow.run_keys k where k.owner_id = forget_owner.owner_id
    and not exists (select from pgflow.runs r where r.run_id = k.run_id and r.owner_id = k.owner_id);
  update pgflow.run_events e set actor_id = null where e.actor_id = forget_owner.owner_id
    and not exists (select from pgflow.runs r where r.run_id = e.run_id and r.owner_id = e.actor_id);
  return cardinality(run_ids);
end
$$;
comment on function pgflow.forget_owner is
  'Erases what a deleted user leaves: runs and all that belongs to them, keys, and their id in the events of others'' runs.';

-- Locks a run; PT404 where there is none.
create function pgflow.locked_run(run_id uuid)
returns pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
begin
  select r.* into run from pgflow.runs r where r.run_id = locked_run.run_id for no key update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('run %s does not exist', coalesce(locked_run.run_id::text, 'null')),
      hint = 'Check its id: select run_id from pgflow.runs.';
  end if;
  return run;
end
$$;

-- Chapter 14: steps that no worker runs. A wait is completed by somebody, a sleep by the time; `tick` is the clock.
--
-- Their task has no message: it is `waiting`, for a signal or for a time, until complete_wait, reject_wait or tick settles it, with
-- the events, locks and rules of any other task. Nothing is held meanwhile.
--
-- Who is asked is decided when a wait begins, and kept in wait_assignees, so that a list of what somebody may decide reads an index.

-- The times of sleeps: an ISO date, with a time or without, in UTC unless it names its zone; or seconds since 1970. Null for
-- anything else, milliseconds included, which would be a year with five digits.
--   select pgflow.time_of('"2030-01-31T08:00:00+01:00"');
create function pgflow.time_of(value jsonb)
returns timestamptz
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  text text := value #>> '{}';
begin
  if jsonb_typeof(value) = 'number' then
    return case when abs(text::numeric) < 253402300800 then to_timestamp(text::float8) end;
  elsif jsonb_typeof(value) = 'string' and text ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then
    return (text || 'T00:00Z')::timestamptz;
  elsif jsonb_typeof(value) = 'string' and text ~ (
    '^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?$'
  ) then
    return (text || case when text ~ '(Z|[+-][0-9]{2}(:?[0-9]{2})?)$' and length(text) > 16 then '' else 'Z' end)::timestamptz;
  end if;
  return null;
exception
  when data_exception then
    return null; -- the 30th of February
end
$$;

-- The ids of users that a value names: one, or an array of 1 to 1,000. Null for anything else.
create function pgflow.user_ids_of(value jsonb)
returns uuid[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if jsonb_typeof(value) = 'string' then
    value := jsonb_build_array(value);
  end if;
  if jsonb_typeof(value) is distinct from 'array' or jsonb_array_length(value) not between 1 and 1000 or exists (
    select from jsonb_array_elements(value) e (id)
    where jsonb_typeof(e.id) <> 'string' or e.id #>> '{}' !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
      or (e.id #>> '{}')::uuid = pgflow.everybody()
  ) then
    return null;
  end if;
  return array(select distinct id::uuid from jsonb_array_elements_text(value) id);
end
$$;

-- What stands in wait_assignees for everybody who is signed in.
create function pgflow.everybody()
returns uuid
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select '00000000-0000-0000-0000-000000000000'::uuid
$$;

-- Whom a wait asks, of a run with such an owner; null where the value at its path names no users, or only the owner, who may
-- not decide. Empty where it asks the service role alone.
create function pgflow.asked_users(step pgflow.steps, owner_id uuid, value jsonb)
returns uuid[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case step.completed_by
    when 'assignees' then nullif(
      case when step.not_by_owner then array_remove(pgflow.user_ids_of(value), owner_id) else pgflow.user_ids_of(value) end, '{}'
    )
    when 'authenticated' then array[pgflow.everybody()]
    when 'owner' then case when owner_id is null or step.not_by_owner then '{}'::uuid[] else array[owner_id] end
    else '{}'
  end;
end
$$;

-- Of what was decided about steps, the waits and sleeps: they start, or fail where a value at a path is not what it has to be. A
-- sleep until a time in the past completes at once. Delays count from `delay` seconds after `as_of`.
create function pgflow.begin_waits(changes pgflow.step_change[], as_of timestamptz, delay int)
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(select c from unnest(changes) c where c.change <> 'waiting') || array(
    with
      wait as (
        select c.run_id, s as step, s.flow_slug, s.step_slug, s.step_type, coalesce(s.assignees_path, s.until_path) as path, (
                 select i.input #> string_to_array(coalesce(s.assignees_path, s.until_path), '.')
                 from pgflow.step_inputs i
                 where i.run_id = c.run_id and i.step_slug = c.step_slug and coalesce(s.assignees_path, s.until_path) is not null
               ) as value, (
                 select r.owner_id from pgflow.runs r where r.run_id = c.run_id
               ) as owner_id
        from unnest(changes) c
        join pgflow.steps s on s.flow_slug = c.flow_slug and s.step_slug = c.step_slug
        where c.change = 'waiting'
      ),
      timed as (
        select w.*, case
            when (w.step).until_path is not null then pgflow.time_of(w.value)
            else as_of + make_interval(secs => begin_waits.delay::float8 + coalesce((w.step).opt_sleep_for, (w.step).opt_timeout))
          end as due_at, case
            when w.step_type = 'wait' then pgflow.asked_users(w.step, w.owner_id, w.value)
          end as asked
        from wait w
      )
    select row(begun.*)::pgflow.step_change
    from timed w
    cross join lateral (
      select case
        when w.step_type = 'sleep' and w.due_at is null then
          format('step "%s" cannot sleep until %s: it is %s, not an ISO date or seconds since 1970',
            w.step_slug, w.path, coalesce(left(w.value::text, 100), 'missing'))
        when w.step_type = 'wait' and w.asked is null then
          format('step "%s" cannot ask %s: it %s', w.step_slug, w.path, case
            when pgflow.user_ids_of(w.value) is not null then 'names only the owner of the run, who may not decide'
            else format('is %s, not the id of a user or an array of them', coalesce(left(w.value::text, 100), 'missing'))
          end)
      end
    ) as problem (error)
    cross join lateral (
      select case
        when problem.error is not null then 'failed'
        when w.step_type = 'sleep' and w.due_at <= as_of then 'completed'
        else 'started'
      end
    ) as next (change)
    cross join lateral (
      select w.run_id, w.flow_slug, w.step_slug, next.change,
             null::bigint as result_n,
             problem.error,
             null as skip_reason,
             null::boolean as cascade,
             case next.change when 'started' then 1 when 'completed' then 0 end as tasks,
             case next.change when 'started' then 1 when 'completed' then 0 end as items,
             0 as retries,
             null::timestamptz as retry_at,
             case when next.change = 'started' then case w.step_type when 'wait' then 'signal' else 'time' end end as waits_for,
             case next.change when 'started' then w.due_at end as due_at
    ) begun
  );
end
$$;

-- The tasks of waits and sleeps that have started, and whom they ask.
create function pgflow.create_waiting_tasks(steps pgflow.step_key[], as_of timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  waits pgflow.step_key[];
begin
  with task as (
    insert into pgflow.step_tasks as old (run_id, step_slug, task_index, flow_slug, status, waits_for, due_at, queued_at)
    select ss.run_id, ss.step_slug, 0, ss.flow_slug, 'waiting', ss.waits_for, ss.due_at, create_waiting_tasks.as_of
    from unnest(create_waiting_tasks.steps) k
    join pgflow.step_states ss using (run_id, step_slug)
    where ss.status = 'started' and ss.waits_for is not null
    on conflict (run_id, step_slug, task_index) do update
    set status = 'waiting',
        waits_for = excluded.waits_for,
        due_at = excluded.due_at,
        attempts_before = old.attempts_count,
        error_message = null,
        queued_at = excluded.queued_at,
        failed_at = null
    returning run_id, step_slug, waits_for
  )
  select array_agg(row(t.run_id, t.step_slug)::pgflow.step_key) filter (where t.waits_for = 'signal') into waits from task t;
  if waits is null then
    return;
  end if;
  delete from pgflow.wait_assignees w using unnest(waits) k where (w.run_id, w.step_slug) = (k.run_id, k.step_slug);
  insert into pgflow.wait_assignees (run_id, step_slug, user_id, flow_slug, started_at)
  select k.run_id, k.step_slug, asked.user_id, r.flow_slug, create_waiting_tasks.as_of
  from unnest(waits) k
  join pgflow.runs r using (run_id)
  join pgflow.steps s on s.flow_slug = r.flow_slug and s.step_slug = k.step_slug
  cross join lateral unnest(pgflow.asked_users(s, r.owner_id, (
    select i.input #> string_to_array(s.assignees_path, '.')
    from pgflow.step_inputs i
    where s.completed_by = 'assignees' and i.run_id = k.run_id and i.step_slug = k.step_slug
  ))) asked (user_id)
  where s.completed_by <> 'service_role';
end
$$;

-- Notes that waits are over, for those who were asked. The caller holds the runs; what is locked all the same is being deleted by
-- forget_owner, which could wait for this transaction.
create function pgflow.close_waits(waits pgflow.step_key[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  update pgflow.wait_assignees w set is_open = false
  from (
    select asked.run_id, asked.step_slug, asked.user_id
    from unnest(close_waits.waits) k
    join pgflow.wait_assignees asked using (run_id, step_slug)
    where asked.is_open
    for no key update of asked skip locked
  ) open
  where (w.run_id, w.step_slug, w.user_id) = (open.run_id, open.step_slug, open.user_id);
end
$$;

-- Who completed a wait before it began.
create function pgflow.early_answer_by(run_id uuid, step_slug text)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return (
    select w.user_id from pgflow.wait_assignees w
    where w.run_id = early_answer_by.run_id and w.step_slug = early_answer_by.step_slug and w.has_answered
    limit 1
  );
end
$$;

-- Completes a wait. The first value counts: the same one again is a success, another one is an error. Before the wait begins the
-- value is kept. The service role and SQL may complete any; for clients, pgflow_public.complete_wait looks at who they are.
--   select pgflow.complete_wait('…', 'approval', '{"approved": true}');
create function pgflow.complete_wait(run_id uuid, step_slug text, output jsonb default 'null')
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
#variable_conflict use_column
declare
  value jsonb := coalesce(complete_wait.output, 'null');
  run pgflow.runs := pgflow.locked_run(complete_wait.run_id);
  state pgflow.step_states := pgflow.state_of_wait(run, complete_wait.step_slug);
  kept jsonb := state.output;
begin
  if state.status = 'created' then
    kept := (
      select t.output from pgflow.step_tasks t
      where t.run_id = run.run_id and t.step_slug = state.step_slug and t.task_index = 0 and t.status = 'completed'
    );
  end if;
  if kept = value then
    return;
  elsif kept is not null then
    raise exception using
      errcode = 'PT409',
      message = format('wait "%s" of run %s was completed with another value', state.step_slug, run.run_id),
      hint = 'The first value counts.';
  elsif state.status not in ('created', 'started') then
    raise exception using
      errcode = 'PT409',
      message = format('wait "%s" of run %s cannot be completed: it has %s', state.step_slug, run.run_id,
        case state.status when 'failed' then 'failed' else 'been ' || state.status end),
      hint = 'A wait that was rejected, has timed out or was cancelled begins again when its run is retried.';
  end if;
  perform pgflow.assert_valid_answer(state, value);
  if state.status = 'started' then
    perform pgflow.settle(
      array[row(run.run_id, state.step_slug, 0, null, null, null, null, null)::pgflow.task_result],
      outputs => jsonb_build_array(jsonb_build_object('output', value))
    );
    return;
  end if;
  insert into pgflow.step_tasks (run_id, step_slug, task_index, flow_slug, status, output, queued_at, completed_at)
  values (run.run_id, state.step_slug, 0, run.flow_slug, 'completed', value, pgflow.now(), pgflow.now())
  on conflict (run_id, step_slug, task_index) do update
  set status = 'completed', output = excluded.output, error_message = null, failed_at = null, completed_at = excluded.completed_at;
  insert into pgflow.wait_assignees (run_id, step_slug, user_id, flow_slug, started_at, is_open, has_answered)
  select run.run_id, state.step_slug, pgflow.current_user_id(), run.flow_slug, pgflow.now(), false, true
  where pgflow.current_user_id() is not null
  on conflict (run_id, step_slug, user_id) do update set is_open = false, has_answered = true;
end
$$;
comment on function pgflow.complete_wait is
  'Completes a wait with a value, also before it begins; the first value counts, and the same one again is a success.';

-- Rejects a wait: its step fails for good, with the reason as its error, and when_exhausted says what becomes of the run.
--   select pgflow.reject_wait('…', 'approval', 'the budget is used up');
create function pgflow.reject_wait(run_id uuid, step_slug text, reason text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  run pgflow.runs := pgflow.locked_run(reject_wait.run_id);
  state pgflow.step_states := pgflow.state_of_wait(run, reject_wait.step_slug);
begin
  if coalesce(reject_wait.reason, '') = '' then
    raise exception using
      errcode = 'PT400', message = 'the reason is missing', hint = 'Say why: it becomes the error of the step.';
  elsif length(reject_wait.reason) > 10000 then
    raise exception using
      errcode = 'PT413',
      message = format('a reason of %s characters is too long', length(reject_wait.reason)),
      hint = 'Give a reason of 10,000 characters at most.';
  elsif state.status in ('failed', 'skipped') and state.error = reject_wait.reason then
    return;
  elsif state.status <> 'started' then
    raise exception using
      errcode = 'PT409',
      message = format('wait "%s" of run %s cannot be rejected: it has %s', state.step_slug, run.run_id, case state.status
        when 'created' then 'not begun'
        when 'completed' then 'completed'
        when 'failed' then 'failed'
        else 'been ' || state.status
      end),
      hint = 'A wait can be rejected from when it begins until it is completed, rejected or has timed out.';
  end if;
  perform pgflow.settle(
    array[row(run.run_id, state.step_slug, 0, null, reject_wait.reason, null, true, null)::pgflow.task_result]
  );
end
$$;
comment on function pgflow.reject_wait is 'Rejects a wait: its step fails for good, with the reason as its error.';

-- The state of a wait of a run; PT404 where the run has no such wait.
create function pgflow.state_of_wait(run pgflow.runs, step_slug text)
returns pgflow.step_states
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  state pgflow.step_states;
begin
  select ss.* into state
  from pgflow.step_states ss
  join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
  where ss.run_id = run.run_id and ss.step_slug = state_of_wait.step_slug and s.step_type = 'wait';
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('run %s has no wait %s', run.run_id, coalesce(to_json(left(state_of_wait.step_slug, 140))::text, 'null')),
      hint = format('The waits of its flow: select step_slug from pgflow.steps where flow_slug = %L and step_type = ''wait''.', run.flow_slug);
  end if;
  return state;
end
$$;

-- Raises PT400 where a value is not what a wait is to be completed with; says where and why.
create function pgflow.assert_valid_answer(state pgflow.step_states, value jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  schema jsonb := (
    select s.output_schema from pgflow.steps s where s.flow_slug = state.flow_slug and s.step_slug = state.step_slug
  );
  errors text[] := case when schema is null then '{}' else pgflow.schema_errors(schema, value) end;
begin
  if errors <> '{}' then
    raise exception using
      errcode = 'PT400',
      message = format('the value is not what wait "%s" takes: %s', state.step_slug, errors[1]),
      detail = array_to_string(errors, '; '),
      hint = 'The step''s output_schema says what it takes.';
  end if;
end
$$;

-- Settles up to `quantity` tasks that are due: sleeps complete; waits that have timed out fail, are skipped or complete, as their
-- step says. Anybody may call it at any time, several at once too; runs that another transaction has locked are left for the next
-- call. Answers how many it has settled, and when something is due next, which may be now.
--   select * from pgflow.tick();
create function pgflow.tick(quantity int default 1000, out settled int, out next_due_at timestamptz)
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  as_of timestamptz := pgflow.now();
  due pgflow.step_key[] := array(
    select row(d.run_id, d.step_slug)::pgflow.step_key
    from (
      select t.run_id, t.step_slug
      from pgflow.step_tasks t
      join pgflow.runs r using (run_id)
      where t.due_at <= as_of and t.waits_for in ('signal', 'time') and r.status = 'started'
      order by t.due_at
      limit greatest(tick.quantity, 0)
      for no key update of r skip locked
    ) d
  );
  results pgflow.task_result[];
  outputs jsonb;
  done pgflow.settled_task[];
begin
  settled := 0;
  if cardinality(due) > 0 then
    -- Looked up again, now that the runs are locked.
    select array_agg(row(
             t.run_id, t.step_slug, t.task_index, null,
             case when s.step_type = 'wait' and s.when_timed_out <> 'complete' then 'the wait has timed out' end, null, true, null
           )::pgflow.task_result),
           jsonb_agg(jsonb_build_object('output', s.timed_out_output))
    into results, outputs
    from unnest(due) k
    join pgflow.step_tasks t using (run_id, step_slug)
    join pgflow.steps s using (flow_slug, step_slug)
    where t.due_at <= as_of;
    done := array(
      select d from pgflow.record_results(array(select distinct k.run_id from unnest(due) k), results, outputs, as_of) d
    );
    settled := cardinality(done);
    if settled > 0 then
      perform pgflow.advance(pgflow.changes_of_due(done), as_of, outputs => outputs);
      perform pgflow.release_messages(done);
    end if;
  end if;
  if exists (select from pgflow.schedules s where s.due_at <= as_of) then
    settled := settled + (select s.started from pgflow.start_due_schedules(tick.quantity) s);
  end if;
  next_due_at := pgflow.next_due_at();
end
$$;
comment on function pgflow.tick is
  'Settles waits and sleeps that are due, and starts schedules that are; answers how many, and when something is due next. Callable by anybody, at any time.';

-- What tasks that are due mean for their steps.
create function pgflow.changes_of_due(settled pgflow.settled_task[])
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(row(c.*)::pgflow.step_change)
    from unnest(changes_of_due.settled) d
    join pgflow.steps s on s.flow_slug = d.flow_slug and s.step_slug = d.step_slug
    cross join lateral (
      select case when d.outcome = 'completed' then 'completed' when s.when_timed_out = 'fail' then 'failed' else 'skipped' end
    ) as next (change)
    cross join lateral (
      select d.run_id, d.flow_slug, d.step_slug, next.change,
             case next.change when 'completed' then d.n end as result_n,
             d.error,
             case next.change when 'skipped' then 'timed_out' end as skip_reason,
             s.when_timed_out = 'skip-cascade' and next.change = 'skipped' as cascade,
             case next.change when 'completed' then 1 else 0 end as tasks,
             null::int as items,
             null::int as retries,
             null::timestamptz as retry_at,
             null::text as waits_for,
             null::timestamptz as due_at
    ) c
  );
end
$$;

-- When something is due next: a wait, a sleep or a schedule; null where nothing waits for a time. In the past where something is due already.
--   select pgflow.next_due_at();
create function pgflow.next_due_at()
returns timestamptz
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return least(
    (select t.due_at from pgflow.step_tasks t where t.due_at is not null order by t.due_at limit 1),
    (select s.due_at from pgflow.schedules s where s.paused_at is null order by s.due_at limit 1)
  );
end
$$;
comment on function pgflow.next_due_at is 'When the next wait, sleep or schedule is due; null where nothing waits for a time.';

-- The same in seconds from now, for workers, whose clocks may differ.
create function pgflow.next_due_in()
returns float8
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
as $$
begin
  return extract(epoch from pgflow.next_due_at() - pgflow.now());
end
$$;
comment on function pgflow.next_due_in is 'Seconds until the next wait, sleep or schedule is due; null where nothing waits for a time.';

-- Chapter 15: every transition becomes an event.
--
-- Statement-level triggers on runs and step_states write the log, so that no transition can be forgotten, by
-- hand-written SQL either. They hold the runs' locks: `seq` goes on from the run's last event, without gaps.
--
-- Old and new rows meet in a full join, since Postgres has no nested loop for it: a plan that is kept from a statement with one
-- row would compare each old row with each new one. Rows without a partner have null in a condition, and so are left out; the
-- `coalesce` around it keeps Postgres from seeing that, and from making an inner join of it.
--
-- What an event sets is in `data`, which is null where that is nothing, and for the most frequent of all: `step:started` with one
-- initial task.
--
-- Events say who: the signed-in user, and the role that the caller acts as. What workers do has no actor.

-- The first events of steps, as their rows say: of those that have begun.
create view pgflow.first_step_events
with (security_invoker = true)
as
select ss.run_id, ss.step_slug, ss.status = 'started' as is_start,
       (select s.step_index from pgflow.steps s where s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug) as step_index,
       'step:' || ss.status as type,
       coalesce(
         ss.completed_at, ss.failed_at, ss.skipped_at, case ss.status when 'started' then ss.started_at end, pgflow.now()
       ) as at,
       case ss.status
         when 'started' then
           case when ss.initial_tasks is distinct from 1 then jsonb_build_object('initial_tasks', ss.initial_tasks) end
         when 'failed' then jsonb_build_object('error', ss.error)
         when 'skipped' then jsonb_build_object('skip_reason', ss.skip_reason, 'error', ss.error)
       end as data
from pgflow.step_states ss
where ss.status <> 'created';
comment on view pgflow.first_step_events is 'The first event of each step that has begun, as its row says.';

-- A run that begins: `run:started`, then the steps that begin in the same statement, as they do where a run is started. (A
-- run that is written by hand may have ended before.)
create function pgflow.tg_runs__after_insert()
returns trigger
language plpgsql
security definer -- whoever changes a run writes its log
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  actor_id uuid := pgflow.current_user_id();
  actor_role text := pgflow.caller_role();
begin
  insert into pgflow.run_events (run_id, seq, type, step_slug, at, data, actor_id, actor_role)
  select n.run_id, 1,
         'run:' || n.status, null,
         coalesce(n.completed_at, n.failed_at, n.cancelled_at, n.started_at),
         case when n.status in ('failed', 'cancelled') then jsonb_build_object('error', n.error) end,
         case when n.status in ('started', 'cancelled') then actor_id end,
         case when n.status in ('started', 'cancelled') then actor_role end
  from new_rows n
  union all
  select n.run_id, 1 + row_number() over (partition by n.run_id order by event.is_start, event.step_index),
         event.type, event.step_slug, event.at, event.data, null, null
  from new_rows n
  cross join lateral (select e.* from pgflow.first_step_events e where e.run_id = n.run_id offset 0) event;
  return null;
end
$$;

create trigger _900_events_of_insert after insert on pgflow.runs
  referencing new table as new_rows
  for each statement execute function pgflow.tg_runs__after_insert();

-- A run that ends, or is retried.
create function pgflow.tg_runs__after_update()
returns trigger
language plpgsql
security definer -- whoever changes a run writes its log
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = on
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  actor_id uuid := pgflow.current_user_id();
  actor_role text := pgflow.caller_role();
begin
  insert into pgflow.run_events (run_id, seq, type, at, data, actor_id, actor_role)
  select n.run_id,
         1 + (select coalesce(max(e.seq), 0) from pgflow.run_events e where e.run_id = n.run_id),
         case n.status when 'started' then 'run:retried' else 'run:' || n.status end,
         coalesce(n.completed_at, n.failed_at, n.cancelled_at, pgflow.now()),
         case n.status
           when 'completed' then null
           when 'started' then jsonb_build_object('step_slugs', (
             select coalesce(jsonb_agg(ss.step_slug order by s.step_index), '[]')
             from pgflow.step_states ss
             join pgflow.steps s using (flow_slug, step_slug)
             where ss.run_id = n.run_id and ss.status = 'created'
           ))
           else jsonb_build_object('error', n.error)
         end,
         case when n.status in ('started', 'cancelled') then actor_id end,
         case when n.status in ('started', 'cancelled') then actor_role end
  from new_rows n
  full join old_rows o using (run_id)
  where coalesce(n.status <> o.status, false);
  return null;
end
$$;

create trigger _900_events_of_update after update on pgflow.runs
  referencing old table as old_rows new table as new_rows
  for each statement execute function pgflow.tg_runs__after_update();

-- Steps that are added to a run, by hand. Those that begin in the statement that begins their run are in its log already.
create function pgflow.tg_step_states__after_insert()
returns trigger
language plpgsql
security definer -- whoever changes a step state writes its run's log
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  added pgflow.step_key[] := array(
    select row(n.run_id, n.step_slug)::pgflow.step_key
    from new_rows n
    where n.status <> 'created'
      and not exists (select from pgflow.run_events e where e.run_id = n.run_id and e.step_slug = n.step_slug)
  );
begin
  if cardinality(added) = 0 then
    return null;
  end if;
  perform from pgflow.runs r
  where r.run_id = any (array(select k.run_id from unnest(added) k))
  order by r.run_id
  for no key update;
  insert into pgflow.run_events (run_id, seq, type, step_slug, at, data)
  select event.run_id,
         row_number() over (partition by event.run_id order by event.is_start, event.step_index) + (
           select coalesce(max(e.seq), 0) from pgflow.run_events e where e.run_id = event.run_id
         ),
         event.type, event.step_slug, event.at, event.data
  from unnest(added) k
  cross join lateral (
    select e.* from pgflow.first_step_events e where e.run_id = k.run_id and e.step_slug = k.step_slug offset 0
  ) event;
  return null;
end
$$;

create trigger _900_events_of_insert after insert on pgflow.step_states
  referencing new table as new_rows
  for each statement execute function pgflow.tg_step_states__after_insert();

-- What steps have become, in the order in which things happen: a step ends before others start. One that completes without
-- having started before (an empty map) starts first.
create function pgflow.tg_step_states__after_update()
returns trigger
language plpgsql
security definer -- whoever changes a step state writes its run's log
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = on
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  as_of timestamptz;
  actor_id uuid := pgflow.current_user_id();
  actor_role text := case when actor_id is not null then pgflow.caller_role() end;
begin
  -- The engine holds these locks already; hand-written SQL gets them here.
  perform from pgflow.runs r
  where r.run_id = any (array(select n.run_id from new_rows n))
  order by r.run_id
  for no key update;
  as_of := pgflow.now();
  insert into pgflow.run_events (run_id, seq, type, step_slug, at, data, actor_id, actor_role)
  select event.run_id,
         row_number() over (partition by event.run_id order by event.place, event.step_index) + (
           select coalesce(max(e.seq), 0) from pgflow.run_events e where e.run_id = event.run_id
         ),
         event.type, event.step_slug,
         coalesce(
           case event.type
             when 'step:started' then event.started_at
             when 'step:completed' then event.completed_at
             when 'step:failed' then event.failed_at
             when 'step:skipped' then event.skipped_at
           end,
           as_of
         ),
         case event.type
           when 'step:started' then case
             when event.waits_for is not null then jsonb_build_object(
               'initial_tasks', event.initial_tasks, 'waits_for', event.waits_for, 'due_at', event.due_at
             )
             when event.initial_tasks is distinct from 1 then jsonb_build_object('initial_tasks', event.initial_tasks)
           end
           when 'step:failed' then jsonb_build_object('error', event.error)
           when 'step:skipped' then jsonb_build_object('skip_reason', event.skip_reason, 'error', event.error)
           when 'step:retrying' then
             jsonb_build_object('error', event.error, 'retries', event.retries, 'retry_at', event.retry_at)
           when 'step:progress' then jsonb_build_object('progress', event.progress)
         end,
         case when settled.by_somebody then actor_id when settled.early then pgflow.early_answer_by(event.run_id, event.step_slug) end,
         case
           when settled.by_somebody then actor_role
           when settled.early and pgflow.early_answer_by(event.run_id, event.step_slug) is not null then 'authenticated'
         end
  from (
    select n.*, kind.type, kind.place, (
             select s.step_index from pgflow.steps s where s.flow_slug = n.flow_slug and s.step_slug = n.step_slug
           ) as step_index
    from new_rows n
    full join old_rows o using (run_id, step_slug)
    cross join lateral (
      values
        (case n.status
           when 'completed' then 1 when 'failed' then 2 when 'skipped' then 3 when 'cancelled' then 4
           when o.status then 5
           else 7
         end,
         case
           when n.status = 'created' then null
           when n.status <> o.status then 'step:' || n.status
           when n.retries > o.retries then 'step:retrying'
         end),
        (case n.status when 'completed' then 0 else 6 end,
         case
           when o.status = 'created' and n.status = 'completed' then 'step:started'
           when n.status = o.status and n.progress is distinct from o.progress then 'step:progress'
         end)
    ) as kind (place, type)
    where kind.type is not null
  ) event
  -- A signed-in user is no worker: they have settled a task. A step without tasks was settled by nobody, or before it began.
  cross join lateral (
    select actor_id is not null and event.initial_tasks > 0
       and event.type in ('step:completed', 'step:failed', 'step:retrying'),
       event.initial_tasks = 0 and event.type = 'step:completed'
  ) as settled (by_somebody, early);
  return null;
end
$$;

create trigger _900_events_of_update after update on pgflow.step_states
  referencing old table as old_rows new table as new_rows
  for each statement execute function pgflow.tg_step_states__after_update();

-- Events as clients see them, one flat object each; `actor` is {id, role} where somebody acted who is no worker. Outputs are stored once, with their run or step, and join here;
-- above 16 KB the event says `output_omitted` instead.
create view pgflow.run_event_records
with (security_invoker = true)
as
select e.run_id, e.seq,
       jsonb_build_object('seq', e.seq, 'type', e.type, 'step_slug', e.step_slug, 'at', e.at)
       || case
            when e.actor_role is null then '{}'
            else jsonb_build_object('actor', jsonb_build_object('id', e.actor_id, 'role', e.actor_role))
          end
       || coalesce(e.data, case e.type when 'step:started' then '{"initial_tasks": 1}'::jsonb else '{}' end)
       || case
            when source.output is null then '{}'
            when octet_length(source.output::text) > 16384 then '{"output_omitted": true}'
            else jsonb_build_object('output', source.output)
          end as event
from pgflow.run_events e
left join lateral (
  select ss.output from pgflow.step_states ss
  where e.type = 'step:completed' and ss.run_id = e.run_id and ss.step_slug = e.step_slug
  union all
  select r.output from pgflow.runs r
  where e.type = 'run:completed' and r.run_id = e.run_id
) source on true;
comment on view pgflow.run_event_records is 'The events of runs as clients see them.';

-- Chapter 16: events are broadcast over Supabase Realtime, to make clients fast. It is never the source of truth.
--
-- Only runs that somebody watches are broadcast, since Realtime counts every message against the whole project's quota:
-- flows.broadcast says `watched` (default), `always` or `never`. Where there is no Realtime, the log alone remains.
--
-- A watch names the topic to which events are sent: one for each user (or client with a secret key), not one for each run.
-- Realtime allows 100 channels a socket, and each of them costs a join.

-- Watches runs for five minutes, for whoever has joined the topic. A new watch waits for those who are writing to the run at
-- the moment: every transition that a later read does not show is broadcast. With `waits => false`, such runs are not watched
-- yet, and returned: ask again for those.
create function pgflow.watch_runs(run_ids uuid[], topic text, waits boolean default true)
returns uuid[]
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  as_of timestamptz := pgflow.now();
  aging uuid[];
  unwatched uuid[];
  free uuid[];
begin
  if watch_runs.topic is null then
    return '{}';
  end if;

  -- Those of which a minute has passed. One that somebody else holds is being renewed, or deleted. Each run is looked up by
  -- itself, whatever the planner believes of this table, which is empty when nobody looks.
  aging := array(
    select asked.run_id
    from unnest(watch_runs.run_ids) asked (run_id)
    cross join lateral (
      select from pgflow.run_watches w
      where w.run_id = asked.run_id and w.topic = watch_runs.topic
        and (w.watched_until > as_of and w.watched_until <= as_of + interval '4 minutes') is true
      limit 1
      for no key update skip locked
    ) lasting
  );
  if cardinality(aging) > 0 then
    update pgflow.run_watches w set watched_until = as_of + interval '5 minutes'
    where w.run_id = any (aging) and w.topic = watch_runs.topic;
  end if;

  unwatched := array(
    select r.run_id
    from unnest(watch_runs.run_ids) asked (run_id)
    join pgflow.runs r using (run_id)
    where r.status = 'started' and (
      select w.watched_until > as_of from pgflow.run_watches w where w.run_id = r.run_id and w.topic = watch_runs.topic
    ) is not true
  );
  if cardinality(unwatched) = 0 then
    return '{}';
  end if;
  if watch_runs.waits then
    free := array(
      select r.run_id from pgflow.runs r where r.run_id = any (unwatched) and r.status = 'started' order by r.run_id for share
    );
  else
    free := array(
      select r.run_id from pgflow.runs r where r.run_id = any (unwatched) and r.status = 'started'
      order by r.run_id for share skip locked
    );
  end if;
  insert into pgflow.run_watches (run_id, topic, watched_until)
  select u.run_id, watch_runs.topic, as_of + interval '5 minutes' from unnest(free) u (run_id)
  on conflict on constraint run_watches_pkey do update set watched_until = excluded.watched_until;

  return array(select u.run_id from unnest(unwatched) u (run_id) except select f.run_id from unnest(free) f (run_id));
end
$$;
comment on function pgflow.watch_runs is 'Has the events of runs sent to a topic for the next five minutes.';

-- What versions before 3 called to watch a run: a call that is under way during the upgrade ends without an error.
create function pgflow.watch_run(run_id uuid)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
end
$$;

-- Broadcasts new events: one private message for each topic, split where it would exceed 200 KB, all in one insert, each row
-- with its own microsecond, and with an id that follows the time, so that it does not touch a random page of the key's index.
-- An event that is too large for that (a huge error or progress) is left for clients to fetch; its run comes all the same. A
-- failure here (no partition for today, a changed table) must not fail the transition.
create function pgflow.tg_run_events__after_insert()
returns trigger
language plpgsql
security definer -- row level security closes realtime.messages to whoever caused the transition
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  as_of timestamptz := pgflow.now();
begin
  if not exists (select from pgflow.run_watches w where w.watched_until > as_of)
     and not exists (select from pgflow.flows f where f.broadcast = 'always')
     or to_regclass('realtime.messages') is null
  then
    return null;
  end if;

  begin
    insert into realtime.messages (id, topic, event, payload, private, extension, inserted_at)
    select (pgflow.new_run_ids())[1], message.topic, 'run_events', jsonb_build_object('runs', message.runs), true, 'broadcast',
           (select clock_timestamp() at time zone 'utc')
           + row_number() over (order by message.topic, message.part) * interval '1 microsecond'
    from (
      select run.topic, run.part,
             jsonb_agg(
               jsonb_build_object('run_id', run.run_id, 'flow_slug', run.flow_slug, 'events', coalesce(run.events, '[]'))
               order by run.run_id
             ) as runs
      from (
        select part.topic, part.part, part.run_id, part.flow_slug,
               jsonb_agg(part.event order by part.seq) filter (where part.event is not null) as events
        from (
          select fitting.*,
                 (sum(fitting.bytes) over (partition by fitting.topic order by fitting.run_id, fitting.seq) - fitting.bytes)
                 / 150000 as part
          from (
            select record.topic, record.run_id, record.flow_slug, record.seq,
                   case when whole.bytes < 48000 then record.event end as event,
                   case when whole.bytes < 48000 then whole.bytes else 0 end
                   + case
                       when lag(record.run_id) over (partition by record.topic order by record.run_id, record.seq)
                            is distinct from record.run_id
                       then 100 + length(record.flow_slug) -- what surrounds the events of a run
                       else 2
                     end as bytes
            from (
              select target.topic, r.run_id, r.flow_slug, n.seq, (
                select shown.event from pgflow.run_event_records shown where shown.run_id = n.run_id and shown.seq = n.seq
              ) as event
              from new_rows n
              join pgflow.runs r using (run_id)
              join pgflow.flows f using (flow_slug)
              cross join lateral (
                select 'pgflow:run:' || r.run_id where f.broadcast = 'always'
                union all
                select w.topic from pgflow.run_watches w
                where w.run_id = r.run_id and (w.watched_until > as_of) is true and f.broadcast <> 'never'
              ) as target (topic)
              offset 0 -- else the event is made anew wherever it is used
            ) record
            cross join lateral (select octet_length(record.event::text)) as whole (bytes)
          ) fitting
        ) part
        group by part.topic, part.part, part.run_id, part.flow_slug
      ) run
      group by run.topic, run.part
    ) message
    order by message.topic, message.part;
  exception
    when others then
      raise warning 'pgflow could not broadcast: %', sqlerrm;
  end;
  return null;
end
$$;

create trigger _900_broadcast after insert on pgflow.run_events
  referencing new table as new_rows
  for each statement execute function pgflow.tg_run_events__after_insert();

-- Chapter 17: what has to be done from time to time, by pg_cron or by hand.
--
-- Each call is one small transaction, so that nothing is locked for long; whoever has much to delete calls often.

-- Deletes up to `quantity` runs that ended before `older_than` ago, with everything under them; answers how many.
--   select pgflow.prune_runs(interval '30 days');
create function pgflow.prune_runs(older_than interval, quantity int default 1000)
returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
  with
    cutoff as (select pgflow.now() - prune_runs.older_than as at),
    ended as (
      select r.run_id
      from pgflow.flows f
      cross join cutoff c
      cross join lateral (
        select r.run_id from pgflow.runs r
        where r.flow_slug = f.flow_slug
          and r.started_at < c.at
          and coalesce(r.completed_at, r.failed_at, r.cancelled_at) < c.at
        order by r.started_at
        limit prune_runs.quantity
        for update skip locked
      ) r
      limit prune_runs.quantity
    ),
    pruned as (
      delete from pgflow.runs r using ended e where r.run_id = e.run_id returning r.run_id
    )
  select count(*) from pruned
$$;
comment on function pgflow.prune_runs is 'Deletes runs that ended longer ago than an interval, with all that belongs to them.';

-- Deletes up to `quantity` archived messages that are older than `older_than`, of any flows; answers how many.
create function pgflow.prune_archives(older_than interval, quantity int default 10000)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  queue text;
  deleted bigint;
  total bigint := 0;
begin
  for queue in select f.queue_name from pgflow.flows f loop
    exit when total >= quantity;
    begin
      execute format('
        delete from pgmq.%1$I a
        where a.msg_id = any (array(select old.msg_id from pgmq.%1$I old where old.archived_at < $1 limit $2))
      ', 'a_' || queue) using pgflow.now() - older_than, quantity - total;
      get diagnostics deleted = row_count;
      total := total + deleted;
    exception
      when undefined_table then null; -- the queue is lost, or its flow is being deleted
    end;
  end loop;
  return total;
end
$$;

-- When `maintain` last looked for lost messages, in seconds since 1970. A sequence, since it is set without a lock.
create sequence pgflow.last_repair;

-- Settles and starts what is due, for projects in which no worker does. Deletes what nobody needs any more: lapsed watches, workers not heard
-- of for a day, archived messages older than keep_archive, and, if keep_runs is given, runs that ended longer ago; every five
-- minutes it also repairs queues. Answers how many of each. It ends after about `budget`, and `left` says whether anything may be left. While somebody else is at
-- it, there is nothing to do.
--   select cron.schedule('pgflow', '10 seconds', $$ select pgflow.maintain(keep_runs => '30 days') $$);
create function pgflow.maintain(
  keep_runs interval default null,
  keep_archive interval default '7 days',
  budget interval default '1 second'
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
  deadline timestamptz := clock_timestamp() + budget;
  pruned bigint;
  archived bigint;
  resent bigint := 0;
  runs bigint := 0;
  messages bigint := 0;
  workers bigint := 0;
  watches bigint := 0;
  due bigint := 0;
  ticked record;
  is_left boolean := false;
begin
  loop
    ticked := pgflow.tick();
    due := due + ticked.settled;
    exit when ticked.settled < 1000 or clock_timestamp() >= deadline;
  end loop;
  if pg_try_advisory_xact_lock(hashtextextended('pgflow.maintain', 0)) then
    if extract(epoch from as_of) - (select s.last_value from pgflow.last_repair s) not between 0 and 300 then
      perform setval('pgflow.last_repair', greatest(1, extract(epoch from as_of)::bigint));
      resent := (select r.messages from pgflow.repair() r);
    end if;
    loop
      pruned := case when keep_runs is null then 0 else pgflow.prune_runs(keep_runs) end;
      archived := case when keep_archive is null then 0 else pgflow.prune_archives(keep_archive) end;
      runs := runs + pruned;
      messages := messages + archived;
      is_left := pruned >= 1000 or archived >= 10000;
      exit when not is_left or clock_timestamp() >= deadline;
    end loop;
    delete from pgflow.workers w where w.last_heartbeat_at < as_of - interval '1 day';
    get diagnostics workers = row_count;
    -- The last thing, and never waiting: a run whose watch is held cannot be watched again, nor deleted.
    delete from pgflow.run_watches w
    where (w.run_id, w.topic) in (
      select lapsed.run_id, lapsed.topic from pgflow.run_watches lapsed where lapsed.watched_until < as_of for update skip locked
    );
    get diagnostics watches = row_count;
    delete from pgflow.inbox_watches w
    where w.topic in (select lapsed.topic from pgflow.inbox_watches lapsed where lapsed.watched_until < as_of for update skip locked);
  end if;
  return jsonb_build_object(
    'runs', runs, 'messages', messages, 'workers', workers, 'watches', watches, 'resent', resent, 'due', due, 'left', is_left
  );
end
$$;
comment on function pgflow.maintain is
  'Settles what is due, repairs queues, deletes lapsed watches, lost workers, old archived messages and, if asked, old runs, within a time budget.';

-- Chapter 18: workers that sleep are woken, where pg_cron and pg_net are installed.
--
-- A worker in an Edge Function lives for minutes. A cron job calls the function when tasks wait and nobody is there to
-- claim them. Nothing else in pgflow needs these extensions.

-- Settles what is due, and calls the function that hosts a worker if tasks wait that no living worker serves; answers whether it
-- did. The Vault has
-- its address as `pgflow_worker_url` and its secret as `pgflow_worker_secret`.
--   select pgflow.wake_worker();
create function pgflow.wake_worker()
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  missing text[] := pgflow.missing_to_wake();
begin
  perform pgflow.tick();
  if cardinality(missing) > 0 then
    raise exception using
      errcode = 'PT404',
      message = 'no worker can be woken',
      detail = 'missing: ' || array_to_string(missing, '; '),
      hint = 'Install what is missing, or unschedule it: select cron.unschedule(''pgflow_wake_worker'').';
  end if;
  if not pgflow.is_unattended() then
    return false;
  end if;
  execute $http$
    select net.http_post(
      url => (select s.decrypted_secret from vault.decrypted_secrets s where s.name = 'pgflow_worker_url'),
      headers => jsonb_build_object('content-type', 'application/json', 'authorization', 'Bearer ' || (
        select s.decrypted_secret from vault.decrypted_secrets s where s.name = 'pgflow_worker_secret'
      )),
      timeout_milliseconds => 10000
    )
  $http$;
  return true;
end
$$;
comment on function pgflow.wake_worker is 'Settles what is due, and calls the Edge Function that hosts a worker if tasks wait that no living worker serves.';

-- Lets pg_cron call wake_worker, every 10 seconds or as said; answers what it did, or what is missing.
--   select pgflow.keep_worker_awake();
--   select pgflow.keep_worker_awake('1 minute');
create function pgflow.keep_worker_awake(every text default '10 seconds')
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  missing text[] := pgflow.missing_to_wake();
begin
  if to_regprocedure('cron.schedule(text, text, text)') is null then
    missing := 'the extension pg_cron'::text || missing;
  end if;
  if cardinality(missing) > 0 then
    return 'not scheduled; missing: ' || array_to_string(missing, '; ');
  end if;
  execute 'select cron.schedule($1, $2, $3)'
  using 'pgflow_wake_worker', keep_worker_awake.every, 'select pgflow.wake_worker()';
  return 'scheduled as pgflow_wake_worker, every ' || keep_worker_awake.every;
end
$$;
comment on function pgflow.keep_worker_awake is 'Schedules wake_worker with pg_cron, or says what is missing.';

-- What wake_worker needs and does not find.
create function pgflow.missing_to_wake()
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  missing text[] := '{}';
  secrets text[];
begin
  if to_regprocedure('net.http_post(text, jsonb, jsonb, jsonb, integer)') is null then
    missing := missing || 'the extension pg_net'::text;
  end if;
  if to_regclass('vault.decrypted_secrets') is null then
    return missing || 'the extension supabase_vault'::text;
  end if;
  execute $vault$
    select array_agg('the secret ' || wanted.name || ' in the Vault' order by wanted.name desc)
    from unnest(array['pgflow_worker_url', 'pgflow_worker_secret']) as wanted (name)
    where not exists (select from vault.decrypted_secrets s where s.name = wanted.name and s.decrypted_secret <> '')
  $vault$ into secrets;
  return missing || secrets;
end
$$;

-- Whether tasks wait, of a flow for which no worker was heard of for half a minute.
create function pgflow.is_unattended()
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  heard_of timestamptz := pgflow.now() - interval '30 seconds';
  queue text;
  waits boolean;
begin
  for queue in
    select f.queue_name from pgflow.flows f
    where not exists (
      select from pgflow.workers w
      where w.stopped_at is null and w.last_heartbeat_at > heard_of and f.flow_slug = any (w.flow_slugs)
    )
  loop
    begin
      execute format('select exists (select from pgmq.%I where vt <= $1)', 'q_' || queue) into waits using clock_timestamp();
      if waits then
        return true;
      end if;
    exception
      when undefined_table then null; -- the queue is lost, or its flow is being deleted
    end;
  end loop;
  return false;
end
$$;

-- Chapter 19: cron expressions: what they say, and the times that they name in a time zone.
--
-- Five fields, as in Vixie cron and pg_cron: minute, hour, day of the month, month, day of the week. Days of the month and of the
-- week both have to match if one of the two fields begins with `*`; else one of them is enough.
--
-- Clocks change. A time of day that does not exist on a day moves to the end of the gap; one that exists twice counts once, the
-- first time. An expression whose hour begins with `*` follows elapsed time instead: it names the hour that is repeated twice,
-- and none for the hour that is missing.

create type pgflow.cron_fields as (
  minutes int[],
  hours int[],
  days int[],
  months int[],
  weekdays int[],
  is_elapsed boolean,
  both_days boolean
);
comment on type pgflow.cron_fields is
  'A cron expression: the values of its fields, in order; Sunday is 0. both_days: a date has to be in days and in weekdays.';

-- The values of one field, in order. Raises PT400 with the field and the reason.
create function pgflow.cron_field(expression text, field text, name text, lowest int, highest int, names text[])
returns int[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  part text;
  bounds text[];
  step int;
  ends int[];
  found int[] := '{}';
  problem text;
begin
  if field = '*' then
    return array(select generate_series(lowest, highest)); -- the usual ones, at a tenth of the time
  elsif field ~ '^[0-9]{1,2}$' and field::int between lowest and highest then
    return array[field::int];
  end if;
  foreach part in array string_to_array(field, ',') loop
    bounds := regexp_match(part, '^(\*|([a-z0-9]+)(-([a-z0-9]+))?)(/([0-9]{1,9}))?$');
    step := coalesce(bounds[6]::int, 1);
    -- A name stands for its number.
    ends := array(
      select case when b.word ~ '^[0-9]{1,9}$' then b.word::int else array_position(names, b.word) + lowest - 1 end
      from unnest(case when bounds[1] = '*' then array[lowest::text, highest::text] else array[bounds[2], coalesce(bounds[4], bounds[2])] end)
        with ordinality as b (word, n)
      order by b.n
    );
    if bounds[4] = 'sun' and ends[1] > 0 then
      ends[2] := 7; -- fri-sun
    end if;
    problem := case
      when part = '' then 'it is empty, or has a comma too many'
      when bounds is null then format('"%s" is not a value, a range, or one of them with a step', part)
      when ends[1] is null or ends[2] is null then format(
        '"%s" is not a number%s', case when ends[1] is null then bounds[2] else bounds[4] end,
        ', nor one of ' || array_to_string(names, ', ')
      )
      when ends[1] not between lowest and highest then format('%s is not between %s and %s', ends[1], lowest, highest)
      when ends[2] not between lowest and highest then format('%s is not between %s and %s', ends[2], lowest, highest)
      when ends[1] > ends[2] then format('the range %s ends before it begins', bounds[1])
      when bounds[5] is not null and bounds[1] <> '*' and bounds[4] is null
      then format('a step needs a range or * before it: %s-%s%s', bounds[1], highest, bounds[5])
      when step not between 1 and highest - lowest + 1 then format('a step of %s is not between 1 and %s', step, highest - lowest + 1)
    end;
    if problem is not null then
      raise exception using
        errcode = 'PT400',
        message = format('the %s of the cron expression "%s" is invalid: %s', name, left(expression, 200), problem),
        hint = 'The fields are minute (0-59), hour (0-23), day of the month (1-31), month (1-12 or jan-dec) and day of the week (0-7 or sun-sat): 30 7 * * mon-fri.';
    end if;
    found := found || array(select generate_series(ends[1], ends[2], step));
  end loop;
  return array(select distinct value from unnest(found) value order by value);
end
$$;

-- What a cron expression says. Raises PT400 where it is none, or names no date at all.
--   select pgflow.parsed_cron('30 7 * * mon-fri');
create function pgflow.parsed_cron(expression text)
returns pgflow.cron_fields
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  trimmed text := lower(btrim(expression, E' \t\r\n'));
  field text[] := regexp_split_to_array(
    case trimmed
      when '@hourly' then '0 * * * *'
      when '@daily' then '0 0 * * *'
      when '@midnight' then '0 0 * * *'
      when '@weekly' then '0 0 * * 0'
      when '@monthly' then '0 0 1 * *'
      when '@yearly' then '0 0 1 1 *'
      when '@annually' then '0 0 1 1 *'
      else trimmed
    end, '\s+'
  );
  months constant text[] := '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}';
  weekdays constant text[] := '{sun,mon,tue,wed,thu,fri,sat}';
  parsed pgflow.cron_fields;
begin
  if cardinality(field) is distinct from 5 then
    raise exception using
      errcode = 'PT400',
      message = format(
        'the cron expression "%s" does not have five fields, but %s', left(expression, 200),
        case when trimmed <> '' then cardinality(field) else 0 end
      ),
      hint = 'Write minute, hour, day of the month, month and day of the week, such as 30 7 * * mon-fri; or @hourly, @daily, @weekly, @monthly, @yearly.';
  end if;
  parsed.minutes := pgflow.cron_field(expression, field[1], 'minute', 0, 59, null);
  parsed.hours := pgflow.cron_field(expression, field[2], 'hour', 0, 23, null);
  parsed.days := pgflow.cron_field(expression, field[3], 'day of the month', 1, 31, null);
  parsed.months := pgflow.cron_field(expression, field[4], 'month', 1, 12, months);
  parsed.weekdays := array(
    select distinct day % 7 from unnest(pgflow.cron_field(expression, field[5], 'day of the week', 0, 7, weekdays)) day
    order by 1
  );
  parsed.is_elapsed := starts_with(field[2], '*');
  parsed.both_days := starts_with(field[3], '*') or starts_with(field[5], '*');
  if parsed.both_days and not exists (
    select from unnest(parsed.months) m (month), unnest(parsed.days) d (day)
    where d.day <= case when m.month = 2 then 29 when m.month in (4, 6, 9, 11) then 30 else 31 end
  ) then
    raise exception using
      errcode = 'PT400',
      message = format('the cron expression "%s" names no date: its months do not have such a day', left(expression, 200)),
      hint = 'Choose a day of the month that exists; there is no word for the last one: name the 1st of the next month instead.';
  end if;
  return parsed;
end
$$;

-- The name of a time zone as the database has it. Raises PT400 where there is none.
create function pgflow.checked_time_zone(name text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  known text;
begin
  if checked_time_zone.name = 'UTC' then
    return 'UTC'; -- the default, and it costs 20 ms to read all names
  end if;
  select z.name into known from pg_timezone_names z
  where lower(z.name) = lower(checked_time_zone.name) and z.name !~ '^(posix|right)/'
  limit 1;
  if known is null then
    raise exception using
      errcode = 'PT400',
      message = format('%s is not a time zone', coalesce(to_json(left(checked_time_zone.name, 100))::text, 'null')),
      hint = 'Use a name such as Europe/Berlin or UTC: select name from pg_timezone_names.';
  end if;
  return known;
end
$$;

-- The first `quantity` times of a cron expression in a time zone, after one time and not after another, in order. It looks at
-- the dates of one month after the other, for 50 years: 29 February is a Monday every 40 years at least.
create function pgflow.cron_times(fields pgflow.cron_fields, time_zone text, after timestamptz, until timestamptz, quantity int)
returns timestamptz[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  first_date constant date := (after at time zone time_zone)::date - 1; -- what moves out of a gap may belong to the day before
  last_date constant date := (least(until, after + interval '50 years') at time zone time_zone)::date + 1;
  bound timestamptz := until;
  month date := date_trunc('month', first_date);
  date_of date;
  offset_before interval;
  offset_after interval;
  midnight timestamptz;
  found timestamptz[] := '{}';
begin
  <<search>>
  while month <= last_date loop
    for date_of in
      select d.date_of
      from (select month + n as date_of from generate_series(0, 30) n) d
      cross join lateral (
        select extract(day from d.date_of)::int = any (fields.days), extract(dow from d.date_of)::int = any (fields.weekdays)
      ) hit (day, weekday)
      where extract(month from month)::int = any (fields.months)
        and date_trunc('month', d.date_of) = month
        and d.date_of between first_date and last_date
        and case when fields.both_days then hit.day and hit.weekday else hit.day or hit.weekday end
      order by d.date_of
    loop
      offset_before := ((date_of - 1)::timestamp at time zone 'UTC' at time zone time_zone) - (date_of - 1)::timestamp;
      offset_after := ((date_of + 2)::timestamp at time zone 'UTC' at time zone time_zone) - (date_of + 2)::timestamp;
      midnight := (date_of::timestamp at time zone 'UTC') - offset_before;
      if offset_before = offset_after then
        continue when midnight + interval '1 day' <= after;
        exit search when midnight > bound;
        found := found || array(
          select t.at
          from unnest(fields.hours) h
          cross join unnest(fields.minutes) m
          cross join lateral (select midnight + (h * 60 + m) * interval '1 minute' as at) t
          where t.at > after and t.at <= bound
          order by t.at
          limit quantity
        );
      else
        found := found || pgflow.cron_times_of_change(fields, time_zone, date_of, offset_before, offset_after, after, bound);
      end if;
      if cardinality(found) >= quantity then
        found := (array(select distinct t from unnest(found) t order by t))[:quantity];
        if cardinality(found) = quantity then
          bound := found[quantity]; -- the day after a change of the clock may have earlier ones
        end if;
      end if;
    end loop;
    loop
      month := month + interval '1 month';
      exit search when cardinality(found) >= quantity and month - 2 > bound;
      exit when extract(month from month)::int = any (fields.months);
    end loop;
  end loop;
  return (array(select distinct t from unnest(found) t order by t))[:quantity];
end
$$;

-- The same for a date on which the clock changes, or next to one: offsets from UTC are those of the day before and of the day
-- after.
create function pgflow.cron_times_of_change(
  fields pgflow.cron_fields,
  time_zone text,
  date_of date,
  offset_before interval,
  offset_after interval,
  after timestamptz,
  until timestamptz
)
returns timestamptz[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with
    wall as (
      select date_of + make_time(h, m, 0) as at
      from unnest(fields.hours) h
      cross join unnest(fields.minutes) m
    ),
    candidate as (
      select w.at, (w.at at time zone 'UTC') - offset_before as early, (w.at at time zone 'UTC') - offset_after as late
      from wall w
    ),
    moment as (
      select c.*, c.early at time zone time_zone = c.at as is_early, c.late at time zone time_zone = c.at as is_late
      from candidate c
    ),
    named as (
      select m.early as at from moment m where m.is_early
      union
      select m.late from moment m where m.is_late and (fields.is_elapsed or not m.is_early)
      union
      select (
        select min(t)
        from generate_series(least(m.early, m.late), greatest(m.early, m.late), interval '1 minute') t
        where t at time zone time_zone >= m.at
      )
      from moment m where not m.is_early and not m.is_late and not fields.is_elapsed
    )
  select coalesce(array_agg(n.at order by n.at), '{}')
  from named n
  where n.at > cron_times_of_change.after and n.at <= cron_times_of_change.until
$$;

-- The next times of a cron expression in a time zone.
--   select pgflow.next_times('30 7 * * mon-fri', 'Europe/Berlin');
create function pgflow.next_times(
  cron text,
  time_zone text default 'UTC',
  after timestamptz default pgflow.now(),
  quantity int default 5
)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if next_times.quantity is null or next_times.quantity not between 1 and 1000 or next_times.after is null
     or not isfinite(next_times.after) then
    raise exception using
      errcode = 'PT400',
      message = format('%s times after %s cannot be named', coalesce(next_times.quantity::text, 'null'), coalesce(next_times.after::text, 'null')),
      hint = 'Ask for 1 to 1,000 times after a time that is not infinite.';
  end if;
  return query
    select unnest(pgflow.cron_times(
      pgflow.parsed_cron(next_times.cron), pgflow.checked_time_zone(next_times.time_zone), next_times.after, 'infinity', next_times.quantity
    ));
end
$$;
comment on function pgflow.next_times is 'The next times of a cron expression in a time zone, 1,000 at most.';

-- Chapter 20: schedules: flows that start by themselves, at the times of a cron expression.
--
-- A row of pgflow.schedules is the whole state: next_at is the next time, computed from the nominal time before, never from the
-- clock. While paused_at is set, times pass without a run; so the row is the switch, for SQL by hand too. Whoever calls
-- start_due_schedules takes what is due and not taken by others. Each run has the idempotency key `schedule <slug> <time>`, so
-- that a time has one run, whatever clocks do.

-- A run that is due, as start_scheduled_runs takes it.
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

-- What becomes of a schedule whose time has come: the nominal times at which it starts a run, the last one that has passed, the next
-- one, the run that is still open, and why no run is started.
create type pgflow.schedule_turn as (
  schedule pgflow.schedules,
  starts timestamptz[],
  last_at timestamptz,
  next_at timestamptz,
  open_run_id uuid,
  problem text
);

-- Makes a schedule, or changes the one that has this slug; its pause stays. It starts the newest version of the flow.
--   select pgflow.schedule('nightly_report', 'report', '0 3 * * *', '{"days": 1}', time_zone => 'Europe/Berlin');
-- overlap says what happens at a time at which the run before is still open: `skip` starts none, `allow` starts one beside it,
-- `cancel` cancels the older one. catch_up says which times are made up for that passed without anybody who could start a run,
-- catch_up_window seconds ago at most: the `last` of them, `none`, or `all`. spread is the number of seconds over which the runs
-- of many schedules with the same time are distributed; each schedule has its own part of it.
create function pgflow.schedule(
  schedule_slug text,
  flow_slug text,
  cron text,
  input jsonb default 'null',
  time_zone text default 'UTC',
  overlap text default 'skip',
  catch_up text default 'last',
  catch_up_window int default 86400,
  spread int default 0,
  owner_id uuid default null,
  group_id uuid default null
)
returns pgflow.schedules
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted pgflow.schedules;
begin
  wanted.schedule_slug := schedule.schedule_slug;
  wanted.made_by := 'sql';
  wanted.cron := schedule.cron;
  wanted.input := schedule.input;
  wanted.time_zone := schedule.time_zone;
  wanted.overlap := schedule.overlap;
  wanted.catch_up := schedule.catch_up;
  wanted.catch_up_window := schedule.catch_up_window;
  wanted.spread := schedule.spread;
  wanted.owner_id := schedule.owner_id;
  wanted.group_id := schedule.group_id;
  return pgflow.put_schedule(wanted, schedule.flow_slug);
end
$$;
comment on function pgflow.schedule is
  'Makes a schedule, by which a flow starts at the times of a cron expression, or changes the one with this slug.';

-- Writes a schedule as it is wanted, unless it is like that already.
create function pgflow.put_schedule(wanted pgflow.schedules, flow_slug text)
returns pgflow.schedules
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
  flow pgflow.flows := pgflow.lock_flow(put_schedule.flow_slug);
  existing pgflow.schedules;
begin
  select s.* into existing from pgflow.schedules s
  where s.schedule_slug = wanted.schedule_slug and s.owner_id is not distinct from wanted.owner_id
  for no key update;
  wanted.alias := flow.alias;
  perform pgflow.assert_can_schedule(wanted, existing, flow);
  if existing.time_zone is distinct from wanted.time_zone then
    wanted.time_zone := pgflow.checked_time_zone(wanted.time_zone);
  end if;
  wanted.schedule_id := coalesce(existing.schedule_id, (pgflow.new_run_ids())[1]);
  wanted.created_at := coalesce(existing.created_at, as_of);
  wanted.paused_at := existing.paused_at;
  wanted.last_at := existing.last_at;
  wanted.last_run_id := existing.last_run_id;
  wanted.last_problem := existing.last_problem;
  wanted.next_at := case
    when (existing.cron, existing.time_zone) = (wanted.cron, wanted.time_zone) then existing.next_at
    else (pgflow.cron_times(pgflow.parsed_cron(wanted.cron), wanted.time_zone, as_of, 'infinity', 1))[1]
  end;
  wanted.due_at := wanted.next_at + pgflow.spread_of(wanted);
  if wanted is distinct from existing then
    insert into pgflow.schedules as s select wanted.*
    on conflict on constraint slug_is_unique do update
    set made_by = excluded.made_by, cron = excluded.cron, time_zone = excluded.time_zone, input = excluded.input,
        overlap = excluded.overlap, catch_up = excluded.catch_up, catch_up_window = excluded.catch_up_window,
        spread = excluded.spread, group_id = excluded.group_id, next_at = excluded.next_at, due_at = excluded.due_at
    where s.alias = excluded.alias
    returning * into wanted;
  end if;
  return wanted;
exception
  when check_violation or not_null_violation then
    raise exception using
      errcode = 'PT400',
      message = format('schedule "%s" has an invalid option', left(wanted.schedule_slug, 140)),
      detail = sqlerrm,
      hint = 'overlap is skip, allow or cancel; catch_up is last, none or all; catch_up_window is 0 seconds to a year, spread 0 seconds to a day; the input is any JSON value.';
end
$$;

-- Refuses a schedule that makes no sense, or that somebody else decides about.
create function pgflow.assert_can_schedule(wanted pgflow.schedules, existing pgflow.schedules, flow pgflow.flows)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_valid_slug(wanted.schedule_slug);
  if existing.alias <> flow.alias then
    raise exception using
      errcode = 'PT409',
      message = format('schedule "%s" is one of flow "%s", not of "%s"', existing.schedule_slug, existing.alias, flow.alias),
      hint = 'Give the schedule another slug, or remove the other one first: select pgflow.unschedule(…).';
  end if;
  if existing.made_by = 'flow' and wanted.made_by = 'sql' then
    raise exception using
      errcode = 'PT409',
      message = format('schedule "%s" belongs to the definition of flow "%s"', existing.schedule_slug, existing.alias),
      hint = 'Change it there, or pause it: select pgflow.pause_schedule(…).';
  end if;
  if existing.made_by = 'sql' and wanted.made_by = 'client' then
    raise exception using
      errcode = 'PT403',
      message = format('you may not change schedule "%s"', existing.schedule_slug),
      hint = 'The project has made it for you. Give yours another slug.';
  end if;
  if flow.input_schema is not null and (existing.input is distinct from wanted.input) then
    perform pgflow.assert_valid_inputs(flow, array[wanted.input]);
  end if;
end
$$;

-- The part of its spread that falls to a schedule, the same each time.
create function pgflow.spread_of(schedule pgflow.schedules)
returns interval
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when schedule.spread > 0 then make_interval(secs =>
      abs(hashtextextended(concat(schedule.schedule_slug, ' ', schedule.owner_id), 0) % (schedule.spread + 1))
    )
    else '0'
  end;
end
$$;

-- The schedule of this slug, locked; PT404 where there is none.
create function pgflow.locked_schedule(schedule_slug text, owner_id uuid)
returns pgflow.schedules
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  schedule pgflow.schedules;
begin
  select s.* into schedule from pgflow.schedules s
  where s.schedule_slug = locked_schedule.schedule_slug and s.owner_id is not distinct from locked_schedule.owner_id
  for no key update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('schedule %s does not exist', coalesce(to_json(left(locked_schedule.schedule_slug, 140))::text, 'null')),
      hint = 'Check the slug, and for a schedule that belongs to a user the owner_id: select schedule_slug, owner_id from pgflow.schedules.';
  end if;
  return schedule;
end
$$;

-- Removes a schedule; runs that it has started go on. One that the definition of a flow declares comes back with it.
--   select pgflow.unschedule('nightly_report');
create function pgflow.unschedule(schedule_slug text, owner_id uuid default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  schedule pgflow.schedules := pgflow.locked_schedule(unschedule.schedule_slug, unschedule.owner_id);
begin
  delete from pgflow.schedules s where s.schedule_id = schedule.schedule_id;
end
$$;
comment on function pgflow.unschedule is 'Removes a schedule.';

-- Pauses a schedule: its times pass without a run.
--   select pgflow.pause_schedule('nightly_report');
create function pgflow.pause_schedule(schedule_slug text, owner_id uuid default null)
returns pgflow.schedules
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  schedule pgflow.schedules := pgflow.locked_schedule(pause_schedule.schedule_slug, pause_schedule.owner_id);
begin
  update pgflow.schedules s set paused_at = coalesce(s.paused_at, pgflow.now())
  where s.schedule_id = schedule.schedule_id
  returning s.* into schedule;
  return schedule;
end
$$;
comment on function pgflow.pause_schedule is 'Pauses a schedule: its times pass without a run.';

-- Resumes a schedule from its next time on: those that have passed in the pause are not made up for.
--   select pgflow.resume_schedule('nightly_report');
create function pgflow.resume_schedule(schedule_slug text, owner_id uuid default null)
returns pgflow.schedules
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  schedule pgflow.schedules := pgflow.locked_schedule(resume_schedule.schedule_slug, resume_schedule.owner_id);
begin
  if schedule.paused_at is not null then
    schedule.paused_at := null;
    schedule.next_at := (pgflow.cron_times(
      pgflow.parsed_cron(schedule.cron), schedule.time_zone, greatest(pgflow.now(), schedule.last_at), 'infinity', 1
    ))[1];
    schedule.due_at := schedule.next_at + pgflow.spread_of(schedule);
    update pgflow.schedules s set (paused_at, next_at, due_at) = (null, schedule.next_at, schedule.due_at)
    where s.schedule_id = schedule.schedule_id;
  end if;
  return schedule;
end
$$;
comment on function pgflow.resume_schedule is 'Resumes a paused schedule from its next time on.';

-- Starts a run of a schedule now, also while it is paused and whatever runs already.
--   select * from pgflow.run_schedule('nightly_report');
create function pgflow.run_schedule(schedule_slug text, owner_id uuid default null)
returns setof pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  schedule pgflow.schedules := pgflow.locked_schedule(run_schedule.schedule_slug, run_schedule.owner_id);
  new_id uuid := (pgflow.new_run_ids())[1];
begin
  perform pgflow.start_scheduled_runs(schedule.alias, array[pgflow.scheduled_run_of(schedule, new_id, pgflow.now())], false);
  update pgflow.schedules s set last_run_id = new_id where s.schedule_id = schedule.schedule_id;
  return query select r.* from pgflow.runs r where r.run_id = new_id;
end
$$;
comment on function pgflow.run_schedule is 'Starts a run of a schedule now, also while it is paused.';

-- The run of a schedule at a time.
create function pgflow.scheduled_run_of(schedule pgflow.schedules, run_id uuid, nominal_at timestamptz)
returns pgflow.scheduled_run
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select schedule.schedule_id, run_id, nominal_at, schedule.schedule_slug, schedule.alias, schedule.made_by, schedule.input,
         schedule.owner_id, schedule.group_id
$$;

-- Starts the runs of schedules that are due, up to `quantity` schedules; answers how many runs it has started, and when it has to be
-- called again: null where there is no schedule. Anybody may call it at any time, several at once too.
--   select * from pgflow.start_due_schedules();
-- A schedule whose run cannot be started keeps the reason in last_problem, and goes on with its next time.
create function pgflow.start_due_schedules(quantity int default 1000, out started int, out next_due_at timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  as_of timestamptz := pgflow.now();
  due pgflow.schedules[] := array(
    select s from pgflow.schedules s
    where s.due_at <= as_of
    order by s.due_at
    limit start_due_schedules.quantity
    for no key update skip locked
  );
begin
  started := case when due = '{}' then 0 else pgflow.take_turns(pgflow.turns_of(due, as_of), as_of) end;
  next_due_at := (select s.due_at from pgflow.schedules s where s.paused_at is null order by s.due_at limit 1);
end
$$;
comment on function pgflow.start_due_schedules is
  'Starts the runs of schedules that are due; answers how many, and when the next one is due.';

-- What becomes of schedules that are due. Runs that have to be cancelled are locked; the schedule of one that somebody else holds is
-- left out, and so stays due.
create function pgflow.turns_of(due pgflow.schedules[], as_of timestamptz)
returns pgflow.schedule_turn[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  to_cancel uuid[] := array(
    select r.run_id
    from pgflow.runs r
    where r.run_id in (select d.last_run_id from unnest(due) d where d.overlap = 'cancel' and d.paused_at is null) and r.status = 'started'
    order by r.run_id
    for no key update skip locked
  );
begin
  return array(
    select row(
      d::pgflow.schedules,
      case
        when d.overlap = 'skip' and open.run_id is not null then '{}'
        when d.overlap = 'skip' then passed.starts[:1]
        when d.overlap = 'cancel' then passed.starts[cardinality(passed.starts):]
        else passed.starts
      end,
      passed.last_at, passed.next_at, open.run_id,
      case
        when d.paused_at is not null then null
        when passed.starts = '{}' then format('nothing started it until %s, when it was too late', as_of)
        when d.overlap = 'skip' and open.run_id is not null then format('run %s was still open', open.run_id)
      end
    )::pgflow.schedule_turn
    from unnest(due) d
    cross join lateral pgflow.passed_times(d, as_of) passed
    left join lateral (
      select r.run_id from pgflow.runs r
      where r.run_id = d.last_run_id and r.status = 'started' and d.overlap in ('skip', 'cancel')
    ) open on true
    where d.overlap <> 'cancel' or d.paused_at is not null or open.run_id is null or open.run_id = any (to_cancel)
  );
end
$$;

-- The nominal times of a schedule for which runs are to be started, at most 100, oldest first; the last one that has passed; and
-- the next one. Of times that were missed that is what catch_up says; a time that is up to two minutes old is not missed.
create function pgflow.passed_times(
  schedule pgflow.schedules,
  as_of timestamptz,
  out starts timestamptz[],
  out last_at timestamptz,
  out next_at timestamptz
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  fields pgflow.cron_fields := pgflow.parsed_cron(schedule.cron);
  until timestamptz := as_of - pgflow.spread_of(schedule);
  oldest timestamptz := until - make_interval(secs => case when schedule.catch_up = 'none' then 120 else greatest(120, schedule.catch_up_window) end);
  since timestamptz := greatest(schedule.next_at, oldest) - interval '1 microsecond';
  latest timestamptz;
begin
  next_at := (pgflow.cron_times(fields, schedule.time_zone, schedule.next_at, 'infinity', 1))[1];
  if next_at > until then
    starts := case when schedule.next_at >= oldest then array[schedule.next_at] else '{}' end;
    last_at := schedule.next_at;
  else
    if schedule.catch_up = 'all' then
      starts := pgflow.cron_times(fields, schedule.time_zone, since, until, 100);
    else
      latest := pgflow.last_cron_time(fields, schedule.time_zone, since, until);
      starts := case when latest is null then '{}' else array[latest] end;
    end if;
    last_at := coalesce(starts[cardinality(starts)], schedule.next_at);
    next_at := (pgflow.cron_times(
      fields, schedule.time_zone, case when cardinality(starts) = 100 then last_at else until end, 'infinity', 1
    ))[1];
  end if;
  if schedule.paused_at is not null then
    starts := '{}';
    last_at := schedule.last_at;
  end if;
end
$$;

-- The last time of a cron expression after one time and not after another, no more than a year later; null where there is none.
create function pgflow.last_cron_time(fields pgflow.cron_fields, time_zone text, after timestamptz, until timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  span interval;
  times timestamptz[];
begin
  -- Longer spans only where the shorter ones have none, so that there are never many times.
  foreach span in array array['1 hour', '1 day', '32 days', '400 days']::interval[] loop
    times := pgflow.cron_times(fields, time_zone, greatest(after, until - span), until, 100000);
    exit when times <> '{}' or until - span <= after;
  end loop;
  return times[cardinality(times)];
end
$$;

-- Starts and cancels what is due, and notes it; answers how many runs were started. The schedules of a flow that somebody is
-- defining at the moment stay due.
create function pgflow.take_turns(turns pgflow.schedule_turn[], as_of timestamptz)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  runs pgflow.scheduled_run[];
  next_alias text;
  ids uuid[] := pgflow.new_run_ids((select coalesce(sum(cardinality(t.starts)), 0)::int from unnest(turns) t), as_of);
  problems jsonb := '{}';
  held text[] := '{}';
  started jsonb;
  quantity int;
begin
  select array_agg(pgflow.scheduled_run_of(n.schedule, ids[n.n], n.nominal_at) order by n.n) into runs
  from (
    select t.schedule, nominal_at, row_number() over (order by nominal_at, (t.schedule).schedule_id) as n
    from unnest(turns) t
    cross join unnest(t.starts) nominal_at
  ) n;

  for next_alias in select distinct r.alias from unnest(runs) r order by 1 loop
    perform from pgflow.flows f where f.flow_slug = pgflow.newest_version(next_alias) for key share skip locked;
    if not found and exists (select from pgflow.flows f where f.flow_slug = pgflow.newest_version(next_alias)) then
      held := held || next_alias;
    else
      problems := problems || pgflow.try_scheduled_runs(
        next_alias, array(select r from unnest(runs) r where r.alias = next_alias order by r.run_id)
      );
    end if;
  end loop;

  select count(*), coalesce(jsonb_object_agg(x.schedule_id, x.run_id order by x.nominal_at), '{}') into quantity, started
  from unnest(runs) x
  join pgflow.runs r using (run_id); -- one that there is already, by its key, has none with this id
  perform pgflow.cancel_run(t.open_run_id, format('schedule "%s" started another run', (t.schedule).schedule_slug))
  from unnest(turns) t
  where (t.schedule).overlap = 'cancel' and t.open_run_id is not null and started ? (t.schedule).schedule_id::text
  order by t.open_run_id;
  update pgflow.schedules s
  set next_at = t.next_at,
      due_at = t.next_at + pgflow.spread_of(s),
      last_at = t.last_at,
      last_run_id = coalesce((started ->> s.schedule_id::text)::uuid, s.last_run_id),
      last_problem = case
        when s.paused_at is null then left(coalesce(problems ->> s.schedule_id::text, t.problem), 10000)
        else s.last_problem
      end
  from unnest(turns) t
  where s.schedule_id = (t.schedule).schedule_id and s.alias <> all (held);
  return quantity;
end
$$;

-- Starts runs of a flow, in a subtransaction. A run that cannot be started does not keep the others from it: the runs are halved
-- until it is found. Answers {schedule_id: reason}.
create function pgflow.try_scheduled_runs(alias text, runs pgflow.scheduled_run[])
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  half int := cardinality(runs) / 2;
begin
  begin
    perform pgflow.start_scheduled_runs(try_scheduled_runs.alias, runs);
    return '{}';
  exception
    when others then
      if left(sqlstate, 2) in ('40', '53', '55', '57', '58') then
        raise; -- not because of the run: the next call tries again
      elsif half = 0 then
        return jsonb_build_object(runs[1].schedule_id, sqlerrm);
      end if;
  end;
  return pgflow.try_scheduled_runs(try_scheduled_runs.alias, runs[:half])
      || pgflow.try_scheduled_runs(try_scheduled_runs.alias, runs[half + 1:]);
end
$$;

-- Starts runs of the newest version of a flow, each for its own owner. A run whose key there already is is left out.
create function pgflow.start_scheduled_runs(alias text, runs pgflow.scheduled_run[], with_keys boolean default true)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  flow pgflow.flows := pgflow.lock_flow(start_scheduled_runs.alias);
begin
  perform pgflow.assert_users_may_start(flow, array(select r.owner_id from unnest(runs) r where r.made_by = 'client'));
  perform from unnest(runs) r
  cross join lateral pgflow.start_runs(
    flow.flow_slug, array[r.run_id], array[r.input], case when with_keys then array[pgflow.key_of(r)] end, r.owner_id, r.group_id,
    jsonb_build_object(
      'schedule', r.schedule_slug, 'nominal_at', to_char(r.nominal_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
    ), 0
  )
  where not with_keys or not exists (
    select from pgflow.run_keys k where k.owner_id = r.owner_id and k.alias = flow.alias and k.key = pgflow.key_of(r)
    union all
    select from pgflow.run_keys k
    where r.owner_id is null and k.owner_id is null and k.alias = flow.alias and k.key = pgflow.key_of(r)
  );
end
$$;

-- The idempotency key of a scheduled run.
create function pgflow.key_of(run pgflow.scheduled_run)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return format('schedule %s %s', run.schedule_slug, to_char(run.nominal_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'));
end
$$;

-- Raises PT403 where users' own schedules may not start a flow: the rules are those of a start, and hold at each time.
create function pgflow.assert_users_may_start(flow pgflow.flows, owner_ids uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if owner_ids <> '{}' and (not flow.schedulable or flow.start_role = 'service_role') then
    raise exception using
      errcode = 'PT403',
      message = format('users may not schedule flow "%s"', flow.alias),
      detail = format('it is %s, and its start_role is %s', case when flow.schedulable then 'schedulable' else 'not schedulable' end, flow.start_role),
      hint = 'Define the flow with schedulable: true, and with a start_role of authenticated or anon.';
  end if;
  if exists (
    select from (select id, count(*)::int as runs from unnest(owner_ids) id group by id) owner
    where pgflow.may_start(flow.flow_slug, owner.id, owner.runs) is not true
  ) then
    raise exception using
      errcode = 'PT403',
      message = format('the owner may not start flow "%s" now', flow.flow_slug),
      hint = 'The project limits it in pgflow.may_start.';
  end if;
end
$$;

-- The schedules that the definition of a flow declares: made, changed, and removed where it declares them no more. A pause stays.
-- Of several versions the newest decides.
create function pgflow.update_schedules(wanted pgflow.flow_definition)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  declared pgflow.schedules;
begin
  if wanted.flow_slug <> pgflow.newest_version(wanted.alias) then
    return;
  end if;
  delete from pgflow.schedules s
  where s.alias = wanted.alias and s.made_by = 'flow' and not exists (
    select from jsonb_array_elements(wanted.schedules) d where d ->> 'schedule_slug' = s.schedule_slug
  );
  for declared in
    select * from jsonb_populate_recordset(null::pgflow.schedules, wanted.schedules)
  loop
    declared.made_by := 'flow';
    declared.time_zone := coalesce(declared.time_zone, 'UTC');
    declared.input := coalesce(declared.input, 'null');
    declared.overlap := coalesce(declared.overlap, 'skip');
    declared.catch_up := coalesce(declared.catch_up, 'last');
    declared.catch_up_window := coalesce(declared.catch_up_window, 86400);
    declared.spread := coalesce(declared.spread, 0);
    perform pgflow.put_schedule(declared, wanted.flow_slug);
  end loop;
end
$$;

-- Chapter 21: the API of workers that have a secret key instead of the database's password.
--
-- The engine's functions for workers, through PostgREST, for the service role only. They have a schema of their own, so that
-- the types of an app, generated from pgflow_public, have only what apps call. Rows come as one JSON array, which no row
-- limit cuts.

create function pgflow_worker.schema_version()
returns int
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.schema_version()
$$;
comment on function pgflow_worker.schema_version is 'The version of the installed migrations.';

create function pgflow_worker.register_flow(definition jsonb)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.register_flow(register_flow.definition)
$$;
comment on function pgflow_worker.register_flow is
  'Creates a flow from its definition, or updates its options.';

create function pgflow_worker.register_worker(worker_id uuid, name text, flow_slugs text[])
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.register_worker(register_worker.worker_id, register_worker.name, register_worker.flow_slugs)
$$;
comment on function pgflow_worker.register_worker is 'Lists a worker that has started.';

create function pgflow_worker.settle_and_claim(
  results jsonb,
  flow_slugs text[],
  quantity int,
  worker_id uuid,
  lease int default 30,
  inline_limit int default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select to_jsonb(s) || jsonb_build_object('next_due_in', pgflow.next_due_in()) from pgflow.settle_and_claim(
    settle_and_claim.results, settle_and_claim.flow_slugs, settle_and_claim.quantity, settle_and_claim.worker_id,
    lease => settle_and_claim.lease, inline_limit => settle_and_claim.inline_limit
  ) s
$$;
comment on function pgflow_worker.settle_and_claim is
  'Settles a batch of results and claims the next tasks: {"stale": […], "held": […], "tasks": […], "next_due_in": …}; next_due_in says in how many seconds to call tick.';

create function pgflow_worker.tick(quantity int default 1000)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('settled', t.settled, 'next_due_in', pgflow.next_due_in()) from pgflow.tick(tick.quantity) t
$$;
comment on function pgflow_worker.tick is
  'Settles waits and sleeps that are due: {"settled": …, "next_due_in": …}; next_due_in says in how many seconds to call it again.';

create function pgflow_worker.heartbeat(worker_id uuid, tasks jsonb default '[]', lease int default 30)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(t), '[]') from pgflow.heartbeat(heartbeat.worker_id, heartbeat.tasks, heartbeat.lease) t
$$;
comment on function pgflow_worker.heartbeat is
  'Extends the leases of a worker''s tasks; tells which are still its own.';

create function pgflow_worker.hand_back(tasks jsonb)
returns int
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.hand_back(hand_back.tasks)
$$;
comment on function pgflow_worker.hand_back is 'Gives claimed tasks back at once.';

create function pgflow_worker.report_progress(reports jsonb)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.report_progress(report_progress.reports)
$$;
comment on function pgflow_worker.report_progress is 'Keeps how far handlers are.';

create function pgflow_worker.fetch_value(run_id uuid, name text, version text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.fetch_value(fetch_value.run_id, fetch_value.name, fetch_value.version)
$$;
comment on function pgflow_worker.fetch_value is 'A value that a claim left out of an input.';

create function pgflow_worker.stop_worker(worker_id uuid)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.stop_worker(stop_worker.worker_id)
$$;
comment on function pgflow_worker.stop_worker is 'Notes that a worker has stopped.';

-- Chapter 22: plans.
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

-- Chapter 23: hooks. Functions that a project may replace: can_access_run and can_start_in_group for teams, may_start for quotas.
--
-- An upgrade leaves them as they are, so that it keeps what a project has made of them.

-- Whether the signed-in user may do something with a run: action is `view`, `cancel`, `retry` or `complete`. Owners see their
-- own runs in any case; this is asked for all else. Replace it to share runs, for instance within teams:
--   create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text) returns boolean …
create function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(can_access_run.owner_id = pgflow.current_user_id(), false);
end
$$;
comment on function pgflow.can_access_run is
  'Decides what a signed-in user may do with a run (view, cancel, retry, complete); replaceable. Default: all with their own.';

-- Whether the signed-in user may start runs in a group. Replace it where teams share runs:
--   create or replace function pgflow.can_start_in_group(group_id uuid) returns boolean …
create function pgflow.can_start_in_group(group_id uuid)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return false;
end
$$;
comment on function pgflow.can_start_in_group is 'Decides in which groups a signed-in user may start runs; replaceable. Default: in none.';

-- Whether a flow may be started `quantity` times for an owner, null where nobody is signed in. Replace it for quotas; it may
-- also raise an error of its own. The service role and SQL are not asked.
--   create or replace function pgflow.may_start(flow_slug text, owner_id uuid, quantity int) returns boolean …
create function pgflow.may_start(flow_slug text, owner_id uuid, quantity int)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return true;
end
$$;
comment on function pgflow.may_start is 'Decides whether a client may start a flow now, for quotas; replaceable. Default: yes.';

-- Chapter 24: rules. Who the caller is, what they may do with a run, and what they may start.

-- The role that the caller acts as, also inside definer functions.
create function pgflow.caller_role()
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(nullif(current_setting('role', true), 'none'), session_user);
end
$$;

-- Whether the caller is the service role or above it, and so not bound by ownership.
create function pgflow.caller_is_service()
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return pg_has_role(pgflow.caller_role(), 'service_role', 'member');
end
$$;

-- Raises PT404 where a run does not exist or the caller may not see it, PT403 where they may see it and no more.
create function pgflow.assert_can_access_run(run_id uuid, action text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
  can_view boolean;
begin
  select r.* into run from pgflow.runs r where r.run_id = assert_can_access_run.run_id;
  if found and pgflow.caller_is_service() then
    return;
  end if;
  can_view := found and (
    coalesce(run.owner_id = pgflow.current_user_id(), false)
    or pgflow.can_access_run(run.run_id, run.owner_id, run.group_id, 'view')
  );
  if can_view is not true then
    raise exception using
      errcode = 'PT404',
      message = format('run %s does not exist, or is not yours', coalesce(assert_can_access_run.run_id::text, 'null')),
      hint = 'Sign in as the user who started the run, and check its id.';
  end if;
  if action <> 'view' and pgflow.can_access_run(run.run_id, run.owner_id, run.group_id, action) is not true then
    raise exception using
      errcode = 'PT403',
      message = format('you may not %s run %s', action, run.run_id),
      hint = 'The project decides it in pgflow.can_access_run.';
  end if;
end
$$;

-- Refuses a start that is not for the caller to make. The service role may start everything.
create function pgflow.assert_may_start(flow_slug text, inputs jsonb, idempotency_keys text[], group_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  flow pgflow.flows := pgflow.lock_flow(assert_may_start.flow_slug);
begin
  if pgflow.caller_is_service() then
    return;
  end if;
  if flow.start_role <> 'anon' and not pg_has_role(pgflow.caller_role(), flow.start_role, 'member') then
    raise exception using
      errcode = 'PT403',
      message = format('the role %s may not start flow "%s"', pgflow.caller_role(), assert_may_start.flow_slug),
      detail = format('its start_role is %s', flow.start_role),
      hint = case flow.start_role
        when 'authenticated' then 'Sign in first.'
        else 'Start it on the server with a secret key, or define the flow with start_role authenticated.'
      end;
  end if;
  -- Who knows or guesses a key would find the run of another, or take the key first.
  if num_nonnulls(variadic idempotency_keys) > 0 and pgflow.current_user_id() is null then
    raise exception using
      errcode = 'PT403',
      message = format('the role %s may not use idempotency keys without a user id', pgflow.caller_role()),
      hint = 'Sign in, anonymously for instance, or leave the key out.';
  end if;
  if group_id is not null and pgflow.can_start_in_group(group_id) is not true then
    raise exception using
      errcode = 'PT403',
      message = format('you may not start runs in group %s', group_id),
      hint = 'The project decides it in pgflow.can_start_in_group.';
  end if;
  perform pgflow.assert_fits(flow, inputs);
  if pgflow.may_start(flow.flow_slug, pgflow.current_user_id(), jsonb_array_length(inputs)) is not true then
    raise exception using
      errcode = 'PT403',
      message = format('you may not start flow "%s" now', assert_may_start.flow_slug),
      hint = 'The project limits it in pgflow.may_start: wait for runs to end, or ask for more.';
  end if;
end
$$;

-- Raises PT400 or PT413 where what a client sends to sync is not an object of up to 1,000 run ids with the seq of an event each.
create function pgflow.assert_are_cursors(cursors jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  quantity int;
  wrong text;
begin
  if jsonb_typeof(cursors) is distinct from 'object' then
    raise exception using
      errcode = 'PT400',
      message = 'the cursors are not an object',
      hint = 'Give them as {"<run_id>": <seq of the last event that is known>}.';
  end if;
  select count(*), min(c.key || ': ' || c.value) filter (
    where c.key !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' or c.value::text !~ '^([0-9]{1,18}|null)$'
  )
  into quantity, wrong
  from jsonb_each(cursors) c;
  if quantity > 1000 then
    raise exception using
      errcode = 'PT413',
      message = format('%s cursors are too many for one call', quantity),
      hint = 'Ask for up to 1,000 runs in a call, and for the others in further calls.';
  end if;
  if wrong is not null then
    raise exception using
      errcode = 'PT400',
      message = format('this is no cursor: %s', left(wrong, 200)),
      hint = 'A cursor is the id of a run with the seq of the last event that is known of it: a whole number, or null.';
  end if;
end
$$;

-- Raises PT413 where a client sends too much at once.
create function pgflow.assert_fits(flow pgflow.flows, inputs jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  largest int;
begin
  if jsonb_typeof(inputs) is distinct from 'array' then
    raise exception using
      errcode = 'PT400',
      message = format('the inputs for flow "%s" are not an array', flow.flow_slug),
      hint = 'Give inputs as a JSON array, an element for each run.';
  end if;
  if jsonb_array_length(inputs) > 1000 then
    raise exception using
      errcode = 'PT413',
      message = format('%s inputs are too many for one call', jsonb_array_length(inputs)),
      hint = 'Start up to 1,000 runs in a call, and the others in further calls.';
  end if;
  if octet_length(inputs::text) > flow.max_input_bytes then
    largest := (select max(octet_length(i::text)) from jsonb_array_elements(inputs) i);
    if largest > flow.max_input_bytes then
      raise exception using
        errcode = 'PT413',
        message = format('an input of %s bytes is too large for flow "%s"', largest, flow.flow_slug),
        detail = format('max_input_bytes of the flow is %s', flow.max_input_bytes),
        hint = 'Put large data into Supabase Storage, and its path into the input; or raise flows.max_input_bytes in SQL.';
    end if;
  end if;
end
$$;

-- Chapter 25: what clients ask for.
--
-- These functions are security definer, since clients have no rights on the tables, and apply the rules to their caller.

-- What clients see of a run: all columns but those of the engine.
create function pgflow.run_record(run pgflow.runs)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return to_jsonb(run) - array['parent_run_id', 'parent_step_slug', 'parent_task_index', 'depth', 'trace_parent'];
end
$$;

-- A run with its step states and the number of the last event in it, from one look at the database.
create function pgflow.snapshot(run_id uuid)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.run_record(r) || jsonb_build_object(
    'seq', (select coalesce(max(e.seq), 0) from pgflow.run_events e where e.run_id = r.run_id),
    'steps', (
      select jsonb_agg(to_jsonb(ss) - array['run_id', 'flow_slug', 'remaining_deps', 'remaining_tasks'] order by s.step_index)
      from pgflow.step_states ss
      join pgflow.steps s using (flow_slug, step_slug)
      where ss.run_id = r.run_id
    )
  )
  from pgflow.runs r
  where r.run_id = snapshot.run_id
$$;

-- The topic to which the events of runs go that the caller watches: that of the signed-in user, whatever `watch` is; for
-- clients with a secret key, one of their own, which `watch` names. Null for those who do not watch, and for callers without
-- an identity, whom no channel could be reserved for. Clients before version 3 say true and have other channels: they poll.
create function pgflow.topic_of_caller(watch text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if topic_of_caller.watch is null or topic_of_caller.watch in ('true', 'false') then
    return null;
  end if;
  if topic_of_caller.watch !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    raise exception using
      errcode = 'PT400',
      message = format('watch is no UUID: %s', left(topic_of_caller.watch, 100)),
      hint = 'Give a UUID that the client has chosen for itself, in lower case.';
  end if;
  return case
    when pgflow.caller_is_service() then 'pgflow:watch:' || topic_of_caller.watch
    else 'pgflow:user:' || pgflow.current_user_id()
  end;
end
$$;

create function pgflow.client_start_flow(
  flow_slug text,
  input jsonb,
  idempotency_key text,
  metadata jsonb,
  watch text,
  delay int,
  group_id uuid
)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the flow's start_role decides
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
begin
  perform pgflow.assert_may_start(
    client_start_flow.flow_slug, jsonb_build_array(client_start_flow.input), array[client_start_flow.idempotency_key],
    client_start_flow.group_id
  );
  select r.* into run from pgflow.start_flow(
    client_start_flow.flow_slug, client_start_flow.input,
    idempotency_key => client_start_flow.idempotency_key, metadata => client_start_flow.metadata,
    delay => client_start_flow.delay, group_id => client_start_flow.group_id
  ) r;
  perform pgflow.watch_runs(array[run.run_id], pgflow.topic_of_caller(client_start_flow.watch));
  return pgflow.snapshot(run.run_id);
end
$$;

create function pgflow.client_start_flows(
  flow_slug text,
  inputs jsonb,
  idempotency_keys text[],
  metadata jsonb,
  watch text,
  delay int,
  group_id uuid
)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the flow's start_role decides
set search_path = pg_catalog, pg_temp
as $$
declare
  run_ids uuid[];
begin
  perform pgflow.assert_may_start(
    client_start_flows.flow_slug, client_start_flows.inputs, client_start_flows.idempotency_keys, client_start_flows.group_id
  );
  run_ids := array(
    select r.run_id
    from pgflow.start_flows(
      client_start_flows.flow_slug, client_start_flows.inputs, client_start_flows.idempotency_keys,
      metadata => client_start_flows.metadata, delay => client_start_flows.delay, group_id => client_start_flows.group_id
    ) with ordinality r
    order by r.ordinality
  );
  perform pgflow.watch_runs(run_ids, pgflow.topic_of_caller(client_start_flows.watch));
  return (
    select coalesce(jsonb_agg(pgflow.snapshot(r.run_id) order by r.n), '[]')
    from unnest(run_ids) with ordinality r (run_id, n)
  );
end
$$;

create function pgflow.client_get_run(run_id uuid, watch text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_get_run.run_id, 'view');
  perform pgflow.watch_runs(array[client_get_run.run_id], pgflow.topic_of_caller(client_get_run.watch));
  return pgflow.snapshot(client_get_run.run_id);
end
$$;

create function pgflow.client_get_run_events(run_id uuid, after bigint, watch text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_get_run_events.run_id, 'view');
  perform pgflow.watch_runs(array[client_get_run_events.run_id], pgflow.topic_of_caller(client_get_run_events.watch));
  return (
    select coalesce(jsonb_agg(e.event order by e.seq), '[]')
    from (
      select record.seq, record.event
      from pgflow.run_event_records record
      where record.run_id = client_get_run_events.run_id and record.seq > coalesce(client_get_run_events.after, 0)
      order by record.seq
      limit 1000
    ) e
  );
end
$$;

-- What many runs have become since their cursors. Those without news are left out of the answer.
create function pgflow.client_sync(cursors jsonb, watch text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  caller uuid := pgflow.current_user_id();
  is_service boolean := pgflow.caller_is_service();
  topic text := pgflow.topic_of_caller(client_sync.watch);
  run_ids uuid[];
  visible uuid[];
  afters bigint[];
  held uuid[];
begin
  perform pgflow.assert_are_cursors(client_sync.cursors);
  run_ids := array(select c.key::uuid from jsonb_each_text(client_sync.cursors) c);
  select coalesce(array_agg(r.run_id), '{}'), array_agg((client_sync.cursors ->> r.run_id::text)::bigint)
  into visible, afters
  from unnest(run_ids) asked (run_id)
  join pgflow.runs r using (run_id)
  where is_service or r.owner_id = caller or pgflow.can_access_run(r.run_id, r.owner_id, r.group_id, 'view');
  held := pgflow.watch_runs(visible, topic, waits => false);

  return (
    with current as (
      select r.run_id, r.status, v.after, coalesce(last.seq, 0) as seq, r.run_id = any (held) as is_held,
             topic is not null and r.status = 'started' and f.broadcast <> 'never' and r.run_id <> all (held) as watched
      from unnest(visible, afters) v (run_id, after)
      join pgflow.runs r using (run_id)
      join pgflow.flows f using (flow_slug)
      left join lateral (select max(e.seq) as seq from pgflow.run_events e where e.run_id = r.run_id) last on true
    ), next as (
      -- Each run gets its first events before any gets its next ones.
      select c.run_id, e.seq, row_number() over (order by e.n, c.run_id) as place
      from current c
      cross join lateral (
        select e.seq, row_number() over (order by e.seq) as n
        from pgflow.run_events e
        where e.run_id = c.run_id and e.seq > c.after
        order by e.seq
        limit 1000
      ) e
      where c.seq > c.after
      order by place
      limit 10000
    ), shown as (
      select n.run_id, n.seq, n.place, (
        select record.event from pgflow.run_event_records record where record.run_id = n.run_id and record.seq = n.seq
      ) as event
      from next n
      offset 0
    ), measured as (
      select s.run_id, s.seq, s.event,
             sum(octet_length(s.event::text)) over (order by s.place) - octet_length(s.event::text) as bytes_before
      from shown s
    ), page as (
      select m.run_id, max(m.seq) as seq, jsonb_agg(m.event order by m.seq) as events
      from measured m
      where m.bytes_before < 1000000
      group by m.run_id
    ), pages as materialized (
      -- One value, since a join of this and the runs would be a loop in a loop.
      select coalesce(jsonb_object_agg(p.run_id, jsonb_build_object('seq', p.seq, 'events', p.events)), '{}') as by_run from page p
    ), answer as (
      select c.*, pages.by_run -> c.run_id::text as page from current c cross join pages
    )
    select jsonb_build_object(
      'user_id', nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub',
      'topic', topic,
      'runs', coalesce(jsonb_agg(jsonb_build_object(
        'run_id', c.run_id, 'status', c.status, 'seq', c.seq, 'watched', c.watched, 'events', coalesce(c.page -> 'events', '[]'),
        'more', c.is_held or coalesce(coalesce((c.page ->> 'seq')::bigint, c.after) < c.seq, false)
      )) filter (where c.after is null or c.after < c.seq or c.is_held), '[]'),
      'missing', (
        select coalesce(jsonb_agg(jsonb_build_object(
          'run_id', asked.run_id, 'code', 'PT404',
          'message', format('run %s does not exist, or is not yours', asked.run_id),
          'hint', 'Sign in as the user who started the run, and check its id.'
        )), '[]')
        from (select run_id from unnest(run_ids) run_id except select run_id from unnest(visible) run_id) asked
      )
    )
    from answer c
  );
end
$$;

create function pgflow.client_cancel_run(run_id uuid, reason text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_cancel_run.run_id, 'cancel');
  perform pgflow.cancel_run(client_cancel_run.run_id, client_cancel_run.reason);
  return pgflow.snapshot(client_cancel_run.run_id);
end
$$;

create function pgflow.client_retry_run(run_id uuid)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_retry_run.run_id, 'retry');
  perform pgflow.retry_run(client_retry_run.run_id);
  return pgflow.snapshot(client_retry_run.run_id);
end
$$;

-- Of the caller's own runs the rule is not asked. Of others' runs a page looks at the newest 1,000 that match the filters,
-- so that it takes a bounded time whatever the rule costs and says: a caller who may see none of them learns it at once.
-- `watch` waits for nobody: a run to which somebody is writing at the moment is not watched.
create function pgflow.client_list_runs(
  flow_slug text,
  status text,
  metadata jsonb,
  owner_id uuid,
  before uuid,
  quantity int,
  group_id uuid,
  watch text
)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
declare
  caller uuid := pgflow.current_user_id();
  is_service boolean := pgflow.caller_is_service();
  listed_owner uuid := client_list_runs.owner_id;
  page int := least(greatest(client_list_runs.quantity, 0), 1000);
  last_seen timestamptz;
  versions text[];
  runs jsonb;
  run_ids uuid[];
  held uuid[];
begin
  if not is_service and listed_owner is null and client_list_runs.group_id is null then
    if caller is null then
      return '[]';
    end if;
    listed_owner := caller;
  end if;
  if exists (select from pgflow.flow_aliases a where a.alias = client_list_runs.flow_slug) then
    versions := array(select f.flow_slug from pgflow.flows f where f.alias = client_list_runs.flow_slug);
  end if;
  if client_list_runs.before is not null then
    perform pgflow.assert_can_access_run(client_list_runs.before, 'view');
    last_seen := (select r.started_at from pgflow.runs r where r.run_id = client_list_runs.before);
  end if;
  -- Executed as text, since it is planned anew for what is asked for: then a filter that is null costs nothing.
  execute $list$
    select coalesce(jsonb_agg(pgflow.run_record(listed) order by listed.started_at desc, listed.run_id desc), '[]')
    from (
      select candidate.*
      from (
        select r.*
        from pgflow.runs r
        where ($1 is null or r.owner_id = $1)
          and ($2 is null or r.group_id = $2)
          and ($3 is null or r.flow_slug = $3 and $4 is null or r.flow_slug = any ($4))
          and ($5 is null or r.status = $5)
          and ($6 is null or r.metadata @> $6)
          and ($7 is null or (r.started_at, r.run_id) < ($7, $8))
        order by r.started_at desc, r.run_id desc
        limit case when $9 or $1 = $10 then $11 else 1000 end
      ) candidate
      where $9 or candidate.owner_id = $10
         or pgflow.can_access_run(candidate.run_id, candidate.owner_id, candidate.group_id, 'view')
      order by candidate.started_at desc, candidate.run_id desc
      limit $11
    ) listed
  $list$
  into runs
  using listed_owner, client_list_runs.group_id, client_list_runs.flow_slug, versions, client_list_runs.status,
        client_list_runs.metadata, last_seen, client_list_runs.before, is_service, caller, page;
  if client_list_runs.watch is null then
    return runs;
  end if;
  run_ids := array(select (r ->> 'run_id')::uuid from jsonb_array_elements(runs) r);
  held := pgflow.watch_runs(run_ids, pgflow.topic_of_caller(client_list_runs.watch), waits => false);
  -- What they are now, from when every later change is broadcast.
  return (
    select coalesce(jsonb_agg(pgflow.run_record(r) order by r.started_at desc, r.run_id desc), '[]')
    from pgflow.runs r
    where r.run_id = any (run_ids)
  );
end
$$;

-- What clients see of a schedule.
create function pgflow.schedule_record(schedule pgflow.schedules)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return to_jsonb(schedule) - array['schedule_id', 'due_at'];
end
$$;

-- Whose schedules a call is about: those of the signed-in user; for the service role those of `owner_id`, or of nobody.
create function pgflow.scheduling_owner(owner_id uuid)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  caller uuid := pgflow.current_user_id();
begin
  if pgflow.caller_is_service() then
    return scheduling_owner.owner_id;
  end if;
  if caller is null then
    raise exception using
      errcode = 'PT403',
      message = format('the role %s has no schedules without a user id', pgflow.caller_role()),
      hint = 'Sign in, anonymously for instance.';
  elsif scheduling_owner.owner_id <> caller then
    raise exception using
      errcode = 'PT403',
      message = 'you may not use the schedules of another user',
      hint = 'Leave owner_id out: it is for secret keys.';
  end if;
  return caller;
end
$$;

-- The rules are those of a start; users may only have schedules of flows that say so, up to max_schedules of each.
create function pgflow.client_schedule_flow(
  flow_slug text,
  cron text,
  input jsonb,
  time_zone text,
  schedule_slug text,
  overlap text,
  catch_up text,
  catch_up_window int,
  owner_id uuid
)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the flow's start_role decides
set search_path = pg_catalog, pg_temp
as $$
declare
  owner uuid := pgflow.scheduling_owner(client_schedule_flow.owner_id);
  is_service boolean := pgflow.caller_is_service();
  flow pgflow.flows := pgflow.lock_flow(client_schedule_flow.flow_slug);
  wanted pgflow.schedules;
begin
  wanted.schedule_slug := coalesce(client_schedule_flow.schedule_slug, flow.alias);
  wanted.made_by := case when is_service then 'sql' else 'client' end;
  wanted.cron := client_schedule_flow.cron;
  wanted.input := client_schedule_flow.input;
  wanted.time_zone := client_schedule_flow.time_zone;
  wanted.overlap := client_schedule_flow.overlap;
  wanted.catch_up := client_schedule_flow.catch_up;
  wanted.catch_up_window := client_schedule_flow.catch_up_window;
  wanted.spread := 0;
  wanted.owner_id := owner;
  perform pgflow.assert_may_start(client_schedule_flow.flow_slug, jsonb_build_array(client_schedule_flow.input), null, null);
  if not is_service then
    perform pgflow.assert_users_may_start(flow, array[owner]);
    perform pg_advisory_xact_lock(hashtextextended('pgflow.schedules:' || owner, 0)); -- or two calls exceed the limit together
    if flow.max_schedules <= (
      select count(*) from pgflow.schedules s
      where s.owner_id = owner and s.alias = flow.alias and s.schedule_slug <> wanted.schedule_slug
    ) then
      raise exception using
        errcode = 'PT403',
        message = format('you may not have more than %s schedules of flow "%s"', flow.max_schedules, flow.alias),
        hint = 'Delete one, or change one that you have; the project sets the limit in flows.max_schedules.';
    end if;
  end if;
  return pgflow.schedule_record(pgflow.put_schedule(wanted, client_schedule_flow.flow_slug));
end
$$;

create function pgflow.client_list_schedules(flow_slug text, owner_id uuid)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; it lists the caller's own
set search_path = pg_catalog, pg_temp
as $$
declare
  is_service boolean := pgflow.caller_is_service();
  owner uuid := pgflow.scheduling_owner(client_list_schedules.owner_id);
begin
  return (
    select coalesce(jsonb_agg(pgflow.schedule_record(listed) order by listed.schedule_slug, listed.owner_id), '[]')
    from (
      select s.* from pgflow.schedules s
      where (is_service and owner is null or s.owner_id = owner)
        and (client_list_schedules.flow_slug is null or s.alias = client_list_schedules.flow_slug)
      order by s.schedule_slug, s.owner_id
      limit 1000
    ) listed
  );
end
$$;

-- Pauses, resumes or deletes a schedule; users do that with those that they have made.
create function pgflow.client_change_schedule(action text, schedule_slug text, owner_id uuid)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; it changes the caller's own
set search_path = pg_catalog, pg_temp
as $$
declare
  owner uuid := pgflow.scheduling_owner(client_change_schedule.owner_id);
  schedule pgflow.schedules := pgflow.locked_schedule(client_change_schedule.schedule_slug, owner);
begin
  if schedule.made_by <> 'client' and not pgflow.caller_is_service() then
    raise exception using
      errcode = 'PT403',
      message = format('you may not change schedule "%s"', schedule.schedule_slug),
      hint = 'The project has made it for you.';
  end if;
  if action = 'pause' then
    schedule := pgflow.pause_schedule(schedule.schedule_slug, owner);
  elsif action = 'resume' then
    schedule := pgflow.resume_schedule(schedule.schedule_slug, owner);
  else
    perform pgflow.unschedule(schedule.schedule_slug, owner);
  end if;
  return pgflow.schedule_record(schedule);
end
$$;

-- Chapter 26: waits as clients see them: who may decide, and what there is for them to decide.
--
-- The service role may decide all. A user may where the wait's completed_by says so: `owner` is the run's owner, or whom
-- pgflow.can_access_run lets `complete`; `authenticated` is every user; `assignees` are those it has named when it began.

-- Raises where the caller may not complete or reject a wait: PT404 where they may not see the run and are not asked, the same for
-- runs and waits that do not exist; PT403 where they may see it.
create function pgflow.assert_may_decide(run_id uuid, step_slug text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  caller uuid := pgflow.current_user_id();
  run pgflow.runs;
  step pgflow.steps;
  begun boolean;
  can_view boolean;
  is_asked boolean;
begin
  if pgflow.caller_is_service() then
    return;
  end if;
  select r.* into run from pgflow.runs r where r.run_id = assert_may_decide.run_id;
  select s.* into step from pgflow.steps s
  where s.flow_slug = run.flow_slug and s.step_slug = assert_may_decide.step_slug and s.step_type = 'wait';
  can_view := run.run_id is not null and (
    coalesce(run.owner_id = caller, false) or pgflow.can_access_run(run.run_id, run.owner_id, run.group_id, 'view') is true
  );
  if step.completed_by in ('authenticated', 'assignees') then
    begun := exists (
      select from pgflow.wait_assignees w
      where w.run_id = run.run_id and w.step_slug = step.step_slug
        and w.user_id in (caller, pgflow.everybody()) and not w.has_answered
    );
  end if;
  is_asked := case step.completed_by
    when 'owner' then
      coalesce(run.owner_id = caller, false)
      or pgflow.can_access_run(run.run_id, run.owner_id, run.group_id, 'complete') is true
    when 'authenticated' then caller is not null and (begun or can_view)
    when 'assignees' then caller is not null and begun
  end and not (step.not_by_owner and coalesce(run.owner_id = caller, false));
  if is_asked then
    return;
  elsif not can_view then
    raise exception using
      errcode = 'PT404',
      message = format('wait %s of run %s does not exist, or you are not asked',
        coalesce(to_json(left(assert_may_decide.step_slug, 140))::text, 'null'), coalesce(assert_may_decide.run_id::text, 'null')),
      hint = 'Sign in as a user who is asked, and check run_id and step_slug: pgflow_public.list_waits lists what you may decide.';
  elsif step.step_slug is not null then
    raise exception using
      errcode = 'PT403',
      message = format('you may not decide wait "%s" of run %s', step.step_slug, run.run_id),
      detail = format('it is completed by: %s%s', step.completed_by, case when step.not_by_owner then ', not by the owner' end),
      hint = 'The flow says who decides (completed_by, not_by_owner); of a wait for assignees, they are known when it begins.';
  end if;
end
$$;

create function pgflow.client_complete_wait(run_id uuid, step_slug text, output jsonb)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the wait says who decides
set search_path = pg_catalog, pg_temp
as $$
declare
  bytes int := octet_length(client_complete_wait.output::text);
  limit_of_flow int;
begin
  perform pgflow.assert_may_decide(client_complete_wait.run_id, client_complete_wait.step_slug);
  if bytes > 65536 and not pgflow.caller_is_service() then
    limit_of_flow := (
      select f.max_input_bytes from pgflow.runs r join pgflow.flows f using (flow_slug) where r.run_id = client_complete_wait.run_id
    );
    if bytes > limit_of_flow then
      raise exception using
        errcode = 'PT413',
        message = format('a value of %s bytes is too large for wait "%s"', bytes, client_complete_wait.step_slug),
        detail = format('max_input_bytes of the flow is %s', limit_of_flow),
        hint = 'Put large data into Supabase Storage, and its path into the value; or raise flows.max_input_bytes in SQL.';
    end if;
  end if;
  perform pgflow.complete_wait(client_complete_wait.run_id, client_complete_wait.step_slug, client_complete_wait.output);
  return pgflow.snapshot_for_caller(client_complete_wait.run_id);
end
$$;

create function pgflow.client_reject_wait(run_id uuid, step_slug text, reason text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the wait says who decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_may_decide(client_reject_wait.run_id, client_reject_wait.step_slug);
  perform pgflow.reject_wait(client_reject_wait.run_id, client_reject_wait.step_slug, client_reject_wait.reason);
  return pgflow.snapshot_for_caller(client_reject_wait.run_id);
end
$$;

-- A run as its caller may see it; null for who may complete its wait, but not see it.
create function pgflow.snapshot_for_caller(run_id uuid)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
begin
  select r.* into run from pgflow.runs r where r.run_id = snapshot_for_caller.run_id;
  if pgflow.caller_is_service()
     or coalesce(run.owner_id = pgflow.current_user_id(), false)
     or pgflow.can_access_run(run.run_id, run.owner_id, run.group_id, 'view') then
    return pgflow.snapshot(run.run_id);
  end if;
  return null;
end
$$;

-- What the caller may decide, the oldest first: each wait with the payload of its step. Reads the waits that ask the caller by
-- their index, whatever else waits.
create function pgflow.client_list_waits(flow_slug text, quantity int, after jsonb, run_id uuid, watch text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; only waits that ask the caller are read
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
#variable_conflict use_column
declare
  caller uuid := pgflow.current_user_id();
  is_service boolean := pgflow.caller_is_service();
  page int := least(greatest(coalesce(client_list_waits.quantity, 50), 0), 1000);
  slugs text[] := array(
    select f.flow_slug from pgflow.flows f
    where client_list_waits.flow_slug is not null
      and (f.flow_slug = client_list_waits.flow_slug or f.alias = client_list_waits.flow_slug and exists (
        select from pgflow.flow_aliases a where a.alias = client_list_waits.flow_slug
      ))
  );
  last_at timestamptz := '-infinity';
  last_run uuid := pgflow.everybody();
  last_step text := '';
  found_keys pgflow.step_key[];
begin
  if client_list_waits.after is not null then
    if pgflow.is_readable(client_list_waits.after ->> 'started_at', 'timestamptz') is not true
       or pgflow.is_readable(client_list_waits.after ->> 'run_id', 'uuid') is not true
       or client_list_waits.after ->> 'step_slug' is null then
      raise exception using
        errcode = 'PT400',
        message = 'after is not an entry of the list',
        hint = 'Give the last entry of the page before, with its started_at, run_id and step_slug.';
    end if;
    last_at := (client_list_waits.after ->> 'started_at')::timestamptz;
    last_run := (client_list_waits.after ->> 'run_id')::uuid;
    last_step := client_list_waits.after ->> 'step_slug';
  end if;
  if is_service then
    found_keys := array(
      select row(w.run_id, w.step_slug)::pgflow.step_key
      from pgflow.flows f
      cross join lateral (
        select t.queued_at, t.run_id, t.step_slug
        from pgflow.step_tasks t
        where t.flow_slug = f.flow_slug and t.waits_for = 'signal'
          and (t.queued_at, t.run_id, t.step_slug) > (last_at, last_run, last_step)
          and (client_list_waits.run_id is null or t.run_id = client_list_waits.run_id)
        order by t.queued_at, t.run_id, t.step_slug
        limit page
      ) w
      where client_list_waits.flow_slug is null or f.flow_slug = any (slugs)
      order by w.queued_at, w.run_id, w.step_slug
      limit page
    );
  elsif caller is null then
    return '[]';
  else
    perform pgflow.watch_inbox(caller, pgflow.topic_of_caller(client_list_waits.watch));
    found_keys := array(
      select row(w.run_id, w.step_slug)::pgflow.step_key
      from unnest(array[caller, pgflow.everybody()]) asked (user_id)
      cross join lateral (
        select mine.started_at, mine.run_id, mine.step_slug
        from pgflow.wait_assignees mine
        join pgflow.runs r on r.run_id = mine.run_id
        where mine.user_id = asked.user_id and mine.is_open
          and (mine.started_at, mine.run_id, mine.step_slug) > (last_at, last_run, last_step)
          and (client_list_waits.run_id is null or mine.run_id = client_list_waits.run_id)
          and (client_list_waits.flow_slug is null or mine.flow_slug = any (slugs))
          and (r.owner_id is distinct from caller or not (
            select s.not_by_owner from pgflow.steps s where s.flow_slug = mine.flow_slug and s.step_slug = mine.step_slug
          ))
        order by mine.started_at, mine.run_id, mine.step_slug
        limit page
      ) w
      order by w.started_at, w.run_id, w.step_slug
      limit page
    );
  end if;
  return (
    select coalesce(jsonb_agg(measured.wait order by measured.n), '[]')
    from (
      select entry.n, entry.wait,
             sum(octet_length(entry.wait::text)) over (order by entry.n) - octet_length(entry.wait::text) as bytes_before
      from (
        select k.ordinality as n, jsonb_build_object(
          'run_id', k.run_id, 'flow_slug', t.flow_slug, 'step_slug', k.step_slug, 'started_at', t.queued_at, 'due_at', t.due_at,
          'input', (select i.input from pgflow.step_inputs i where i.run_id = k.run_id and i.step_slug = k.step_slug),
          'output_schema', (select s.output_schema from pgflow.steps s where s.flow_slug = t.flow_slug and s.step_slug = k.step_slug)
        ) as wait
        from unnest(found_keys) with ordinality k
        join pgflow.step_tasks t on t.run_id = k.run_id and t.step_slug = k.step_slug and t.task_index = 0
        where t.waits_for = 'signal'
        offset 0 -- else an entry is made anew wherever it is used
      ) entry
    ) measured
    where measured.bytes_before < 1000000
  );
end
$$;

-- Has news of the waits that ask a user sent to a topic for the next five minutes.
create function pgflow.watch_inbox(user_id uuid, topic text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
begin
  if watch_inbox.topic is not null then
    insert into pgflow.inbox_watches as w (topic, user_id, watched_until)
    values (watch_inbox.topic, watch_inbox.user_id, as_of + interval '5 minutes')
    on conflict on constraint inbox_watches_pkey do update set watched_until = excluded.watched_until
    where w.watched_until < as_of + interval '4 minutes';
  end if;
end
$$;

-- Tells those who follow their list of waits what has been added to it or is over: one private message for each topic, `waits`. It
-- names up to 500 waits; the list itself has the others. A failure here must not fail the transition.
create function pgflow.send_inbox_news(changed pgflow.wait_assignees[])
returns void
language plpgsql
security definer -- row level security closes realtime.messages to whoever caused the transition
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
begin
  if not exists (select from pgflow.inbox_watches w where w.watched_until > as_of)
     or to_regclass('realtime.messages') is null
  then
    return;
  end if;
  begin
    insert into realtime.messages (topic, event, payload, private, extension, inserted_at)
    select news.topic, 'waits', jsonb_build_object('waits', news.waits), true, 'broadcast',
           (select clock_timestamp() at time zone 'utc') + row_number() over (order by news.topic) * interval '1 microsecond'
    from (
      select one.topic, jsonb_agg(one.wait order by one.n) as waits
      from (
        select w.topic, row_number() over (partition by w.topic) as n, jsonb_build_object(
          'run_id', c.run_id, 'flow_slug', c.flow_slug, 'step_slug', c.step_slug, 'open', c.is_open
        ) as wait
        from unnest(changed) c
        join pgflow.inbox_watches w on w.user_id = c.user_id or c.user_id = pgflow.everybody()
        where w.watched_until > as_of and not c.has_answered
      ) one
      where one.n <= 500
      group by one.topic
    ) news;
  exception
    when others then
      raise warning 'pgflow could not broadcast: %', sqlerrm;
  end;
end
$$;

create function pgflow.tg_wait_assignees__after_insert()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.send_inbox_news(array(
    select row(n.run_id, n.step_slug, n.user_id, n.flow_slug, n.started_at, n.is_open, n.has_answered)::pgflow.wait_assignees
    from new_rows n
  ));
  return null;
end
$$;

create trigger _900_inbox_of_insert after insert on pgflow.wait_assignees
  referencing new table as new_rows
  for each statement execute function pgflow.tg_wait_assignees__after_insert();

create function pgflow.tg_wait_assignees__after_update()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.send_inbox_news(array(
    select row(n.run_id, n.step_slug, n.user_id, n.flow_slug, n.started_at, n.is_open, n.has_answered)::pgflow.wait_assignees
    from new_rows n
    full join old_rows o using (run_id, step_slug, user_id)
    where coalesce(n.is_open <> o.is_open, false)
  ));
  return null;
end
$$;

create trigger _900_inbox_of_update after update on pgflow.wait_assignees
  referencing old table as old_rows new table as new_rows
  for each statement execute function pgflow.tg_wait_assignees__after_update();

-- Chapter 27: the exposed API of clients: thin functions that run as their caller.

-- Which version of the migrations this database has, for packages that meet a missing function or argument.
--   supabase.schema('pgflow_public').rpc('schema_version')
create function pgflow_public.schema_version()
returns int
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.schema_version()
$$;
comment on function pgflow_public.schema_version is 'The version of the installed migrations.';

-- Starts a run of a flow and answers with its snapshot. `delay` is in seconds; `group_id` is a team's, where
-- pgflow.can_start_in_group lets the caller start runs in it. `watch` is a UUID that the client has chosen for itself: the run's
-- events are sent to pgflow:user:<id of the user>, for a secret key to pgflow:watch:<the UUID>, until five minutes have passed.
--   supabase.schema('pgflow_public').rpc('start_flow', { flow_slug: 'analyze_document', input: { path: 'README.md' } })
create function pgflow_public.start_flow(
  flow_slug text,
  input jsonb,
  idempotency_key text default null,
  metadata jsonb default null,
  watch text default null,
  delay int default 0,
  group_id uuid default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  -- PostgREST passes the JSON value null as SQL's.
  select pgflow.client_start_flow(flow_slug, coalesce(input, 'null'), idempotency_key, metadata, watch, delay, group_id)
$$;
comment on function pgflow_public.start_flow is
  'Starts a run of a flow and answers with its snapshot. watch: a UUID of the client, for five minutes of its events.';

-- Starts a run for each of many inputs, all or none, and answers with their snapshots, in the order of the inputs.
--   supabase.schema('pgflow_public').rpc('start_flows', { flow_slug: 'resize_image', inputs: [{ path: 'a.png' }] })
create function pgflow_public.start_flows(
  flow_slug text,
  inputs jsonb,
  idempotency_keys text[] default null,
  metadata jsonb default null,
  watch text default null,
  delay int default 0,
  group_id uuid default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_start_flows(flow_slug, inputs, idempotency_keys, metadata, watch, delay, group_id)
$$;
comment on function pgflow_public.start_flows is
  'Starts a run of a flow for each of many inputs and answers with their snapshots.';

-- The snapshot of a run: its row, its step states, and `seq`, the number of the last event in it.
--   supabase.schema('pgflow_public').rpc('get_run', { run_id })
create function pgflow_public.get_run(run_id uuid, watch text default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_get_run(run_id, watch)
$$;
comment on function pgflow_public.get_run is 'The snapshot of a run. watch: as for start_flow.';

-- Up to 1,000 events of a run after the one numbered `after`, in order.
--   supabase.schema('pgflow_public').rpc('get_run_events', { run_id, after: 3 })
create function pgflow_public.get_run_events(run_id uuid, after bigint default 0, watch text default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_get_run_events(run_id, after, watch)
$$;
comment on function pgflow_public.get_run_events is
  'Up to 1,000 events of a run after `after`. watch: as for start_flow.';

-- What up to 1,000 runs have become, in one call. `cursors` has the seq of the last event that the caller knows of each run, or
-- null to learn only where it stands. The answer:
--   user_id  as whom the caller was understood: the `sub` of the token, or null
--   topic    where the events of watched runs are sent, or null
--   runs     those with news: run_id, status, seq of the last event, whether the run is watched, its next events, and whether
--            there is more to ask for. An answer has up to 10,000 events and about 1 MB.
--   missing  runs that do not exist, or that the caller may not see: run_id with code, message and hint
-- `watch` as for start_flow: it is renewed for all of these runs.
--   supabase.schema('pgflow_public').rpc('sync', { cursors: { [run_id]: 3 }, watch: crypto.randomUUID() })
create function pgflow_public.sync(cursors jsonb, watch text default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_sync(cursors, watch)
$$;
comment on function pgflow_public.sync is
  'The news of up to 1,000 runs after their cursors, {"<run_id>": <seq>}; renews their watches.';

-- Cancels a run and answers with its snapshot; the reason becomes its error.
--   supabase.schema('pgflow_public').rpc('cancel_run', { run_id, reason: 'no longer needed' })
create function pgflow_public.cancel_run(run_id uuid, reason text default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_cancel_run(run_id, reason)
$$;
comment on function pgflow_public.cancel_run is 'Cancels a run and answers with its snapshot.';

-- Lets a failed or cancelled run go on from where it ended, and answers with its snapshot.
--   supabase.schema('pgflow_public').rpc('retry_run', { run_id })
create function pgflow_public.retry_run(run_id uuid)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_retry_run(run_id)
$$;
comment on function pgflow_public.retry_run is 'Lets a failed or cancelled run go on, and answers with its snapshot.';

-- Runs without their steps, the newest first, at most 1,000: the signed-in user's own, or those of an owner or group that
-- pgflow.can_access_run lets them see, of the newest 1,000 that match; all of them for the service role. `before` is the
-- run_id of the last one seen; it must still be there.
--   supabase.schema('pgflow_public').rpc('list_runs', { flow_slug: 'analyze_document', status: 'failed' })
create function pgflow_public.list_runs(
  flow_slug text default null,
  status text default null,
  metadata jsonb default null,
  owner_id uuid default null,
  before uuid default null,
  quantity int default 50,
  group_id uuid default null,
  watch text default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_list_runs(flow_slug, status, metadata, owner_id, before, quantity, group_id, watch)
$$;
comment on function pgflow_public.list_runs is 'Lists runs, the newest first; metadata is matched with @>. watch: as for start_flow, of the open ones.';

-- Completes a wait that asks the caller; the first value counts, and the same one again is a success. Before the wait begins, the
-- value is kept.
--   supabase.schema('pgflow_public').rpc('complete_wait', { run_id, step_slug: 'approval', output: { approved: true } })
create function pgflow_public.complete_wait(run_id uuid, step_slug text, output jsonb default 'null')
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  -- PostgREST passes the JSON value null as SQL's.
  select pgflow.client_complete_wait(run_id, step_slug, coalesce(output, 'null'))
$$;
comment on function pgflow_public.complete_wait is 'Completes a wait that asks the caller; the first value counts.';

-- Rejects a wait that asks the caller: its step fails, with the reason as its error.
--   supabase.schema('pgflow_public').rpc('reject_wait', { run_id, step_slug: 'approval', reason: 'the budget is used up' })
create function pgflow_public.reject_wait(run_id uuid, step_slug text, reason text)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_reject_wait(run_id, step_slug, reason)
$$;
comment on function pgflow_public.reject_wait is 'Rejects a wait that asks the caller: its step fails with the reason.';

-- The waits that ask the caller, the oldest first, at most 1,000 and about 1 MB; for the service role, all. Each has run_id,
-- flow_slug, step_slug, started_at, due_at, the input of its step, {"run": …, "<dep>": …}, and output_schema. `after` is the last entry
-- of the page before; an empty page is the end. `watch` is a UUID of the client: for five minutes, a message `waits` is sent to
-- pgflow:user:<id of the user> when one is added or over.
--   supabase.schema('pgflow_public').rpc('list_waits', { flow_slug: 'publish' })
create function pgflow_public.list_waits(
  flow_slug text default null,
  quantity int default 50,
  after jsonb default null,
  run_id uuid default null,
  watch text default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_list_waits(flow_slug, quantity, after, run_id, watch)
$$;
comment on function pgflow_public.list_waits is
  'Lists the waits that ask the caller, the oldest first, with the input of their step. watch: as for start_flow, for news of the list.';

-- Makes a schedule of the signed-in user, or changes the one with this slug, and answers with it: the flow starts at the times of a
-- cron expression in a time zone, and the runs belong to the user. The flow has to be schedulable. The slug is the flow's, unless
-- the user has several. `overlap`, `catch_up` and `catch_up_window` (seconds) as for pgflow.schedule. `owner_id` is for secret keys.
--   supabase.schema('pgflow_public').rpc('schedule_flow', { flow_slug: 'digest', cron: '0 7 * * *', time_zone: 'Europe/Berlin' })
create function pgflow_public.schedule_flow(
  flow_slug text,
  cron text,
  input jsonb default 'null',
  time_zone text default 'UTC',
  schedule_slug text default null,
  overlap text default 'skip',
  catch_up text default 'last',
  catch_up_window int default 86400,
  owner_id uuid default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  -- PostgREST passes the JSON value null as SQL's.
  select pgflow.client_schedule_flow(
    flow_slug, cron, coalesce(input, 'null'), time_zone, schedule_slug, overlap, catch_up, catch_up_window, owner_id
  )
$$;
comment on function pgflow_public.schedule_flow is
  'Makes a schedule of the signed-in user, or changes the one with this slug, and answers with it.';

-- The schedules of the signed-in user, at most 1,000; for secret keys those of `owner_id`, or all.
--   supabase.schema('pgflow_public').rpc('list_schedules')
create function pgflow_public.list_schedules(flow_slug text default null, owner_id uuid default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_list_schedules(flow_slug, owner_id)
$$;
comment on function pgflow_public.list_schedules is 'The schedules of the signed-in user; flow_slug is the name without a version.';

-- Pauses a schedule: its times pass without a run. Answers with it.
--   supabase.schema('pgflow_public').rpc('pause_schedule', { schedule_slug: 'digest' })
create function pgflow_public.pause_schedule(schedule_slug text, owner_id uuid default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_change_schedule('pause', schedule_slug, owner_id)
$$;
comment on function pgflow_public.pause_schedule is 'Pauses a schedule of the signed-in user and answers with it.';

-- Resumes a paused schedule from its next time on, and answers with it.
--   supabase.schema('pgflow_public').rpc('resume_schedule', { schedule_slug: 'digest' })
create function pgflow_public.resume_schedule(schedule_slug text, owner_id uuid default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_change_schedule('resume', schedule_slug, owner_id)
$$;
comment on function pgflow_public.resume_schedule is 'Resumes a schedule of the signed-in user and answers with it.';

-- Deletes a schedule, and answers with what it was; runs that it has started go on.
--   supabase.schema('pgflow_public').rpc('delete_schedule', { schedule_slug: 'digest' })
create function pgflow_public.delete_schedule(schedule_slug text, owner_id uuid default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_change_schedule('delete', schedule_slug, owner_id)
$$;
comment on function pgflow_public.delete_schedule is 'Deletes a schedule of the signed-in user.';

-- Erases what a deleted user leaves, and answers how many runs that were. For servers with a secret key.
--   supabase.schema('pgflow_public').rpc('forget_owner', { owner_id: user.id })
create function pgflow_public.forget_owner(owner_id uuid, quantity int default null)
returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.forget_owner(forget_owner.owner_id, forget_owner.quantity)
$$;
comment on function pgflow_public.forget_owner is 'Erases what a deleted user leaves. For servers with a secret key.';

-- Chapter 28: who may do what. All policies and grants.
--
-- Clients reach nothing but pgflow_public (workers with a secret key: pgflow_worker) and the few definer functions that it calls. Tables have row level security and no
-- grants to clients: a second wall.

-- Row level security: the own runs for users, where somebody grants them the tables; everything else is closed. The rule is
-- asked for others' runs only: it costs a call a row.

alter table pgflow.flows enable row level security;
alter table pgflow.flow_aliases enable row level security;
alter table pgflow.steps enable row level security;
alter table pgflow.deps enable row level security;
alter table pgflow.runs enable row level security;
alter table pgflow.run_keys enable row level security;
alter table pgflow.step_states enable row level security;
alter table pgflow.step_tasks enable row level security;
alter table pgflow.run_events enable row level security;
alter table pgflow.run_watches enable row level security;
alter table pgflow.wait_assignees enable row level security;
alter table pgflow.inbox_watches enable row level security;
alter table pgflow.workers enable row level security;
alter table pgflow.schedules enable row level security;

create policy own_runs on pgflow.runs for select to authenticated
  using (
    owner_id = (select pgflow.current_user_id()) or pgflow.can_access_run(run_id, owner_id, group_id, 'view')
  );
create policy own_step_states on pgflow.step_states for select to authenticated
  using (exists (select from pgflow.runs r where r.run_id = step_states.run_id));
create policy own_run_events on pgflow.run_events for select to authenticated
  using (exists (select from pgflow.runs r where r.run_id = run_events.run_id));

create policy closed on pgflow.flows for all to anon, authenticated using (false);
create policy closed on pgflow.flow_aliases for all to anon, authenticated using (false);
create policy closed on pgflow.steps for all to anon, authenticated using (false);
create policy closed on pgflow.deps for all to anon, authenticated using (false);
create policy closed on pgflow.run_keys for all to anon, authenticated using (false);
create policy closed on pgflow.step_tasks for all to anon, authenticated using (false);
create policy closed on pgflow.run_watches for all to anon, authenticated using (false);
create policy closed on pgflow.wait_assignees for all to anon, authenticated using (false);
create policy closed on pgflow.inbox_watches for all to anon, authenticated using (false);
create policy closed on pgflow.workers for all to anon, authenticated using (false);
create policy closed on pgflow.schedules for all to anon, authenticated using (false);

-- The private channels. Nobody may insert, so that events cannot be forged. Topics pgflow:watch:<id> are for clients with a
-- secret key, which policies do not bind.

-- Whether the caller may listen to a topic: their own, which is decided without a look at any table; or that of a run that
-- they can access, to which flows with broadcast = 'always' send. Never raises, whatever the topic.
create function pgflow.can_read_topic(topic text)
returns boolean
language sql
stable
security definer -- clients have no rights on runs
set search_path = pg_catalog, pg_temp
as $$
  select case
    when can_read_topic.topic ~ '^pgflow:run:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then exists (
      select from pgflow.runs r
      where r.run_id = substr(can_read_topic.topic, 12)::uuid
        and (
          r.owner_id = (select pgflow.current_user_id())
          or pgflow.can_access_run(r.run_id, r.owner_id, r.group_id, 'view')
        )
    )
    else coalesce(can_read_topic.topic = 'pgflow:user:' || pgflow.current_user_id(), false)
  end
$$;

do $$
begin
  if to_regclass('realtime.messages') is not null then
    drop policy if exists pgflow_run_channels on realtime.messages;
    create policy pgflow_run_channels on realtime.messages for select to authenticated
      using (pgflow.can_read_topic((select realtime.topic())));
  end if;
end
$$;

-- Grants: execute is taken from everybody, then given by name.

revoke all on all tables in schema pgflow from public, anon, authenticated, service_role;
revoke all on all functions in schema pgflow, pgflow_public, pgflow_worker from public, anon, authenticated, service_role;

grant usage on schema pgflow_public, pgflow to anon, authenticated, service_role;

grant execute on function
  pgflow_public.start_flow(text, jsonb, text, jsonb, text, int, uuid),
  pgflow_public.start_flows(text, jsonb, text[], jsonb, text, int, uuid),
  pgflow_public.get_run(uuid, text),
  pgflow_public.get_run_events(uuid, bigint, text),
  pgflow_public.sync(jsonb, text),
  pgflow_public.list_runs(text, text, jsonb, uuid, uuid, int, uuid, text),
  pgflow_public.cancel_run(uuid, text),
  pgflow_public.retry_run(uuid),
  pgflow_public.complete_wait(uuid, text, jsonb),
  pgflow_public.reject_wait(uuid, text, text),
  pgflow_public.list_waits(text, int, jsonb, uuid, text),
  pgflow_public.schema_version(),
  pgflow.schema_version(),
  pgflow.client_start_flow(text, jsonb, text, jsonb, text, int, uuid),
  pgflow.client_start_flows(text, jsonb, text[], jsonb, text, int, uuid),
  pgflow.client_get_run(uuid, text),
  pgflow.client_get_run_events(uuid, bigint, text),
  pgflow.client_sync(jsonb, text),
  pgflow.client_list_runs(text, text, jsonb, uuid, uuid, int, uuid, text),
  pgflow.client_cancel_run(uuid, text),
  pgflow.client_retry_run(uuid),
  pgflow.client_complete_wait(uuid, text, jsonb),
  pgflow.client_reject_wait(uuid, text, text),
  pgflow.client_list_waits(text, int, jsonb, uuid, text)
to anon, authenticated, service_role;

-- Schedules of users; they need a user id, and the error says so.
grant execute on function
  pgflow_public.schedule_flow(text, text, jsonb, text, text, text, text, int, uuid),
  pgflow_public.list_schedules(text, uuid),
  pgflow_public.pause_schedule(text, uuid),
  pgflow_public.resume_schedule(text, uuid),
  pgflow_public.delete_schedule(text, uuid),
  pgflow.client_schedule_flow(text, text, jsonb, text, text, text, text, int, uuid),
  pgflow.client_list_schedules(text, uuid),
  pgflow.client_change_schedule(text, text, uuid)
to anon, authenticated, service_role;

grant execute on function pgflow.can_read_topic(text) to authenticated;
-- For teams that grant the tables to their users, whose policies call these.
grant execute on function pgflow.can_access_run(uuid, uuid, uuid, text), pgflow.current_user_id() to authenticated;

grant execute on function pgflow.forget_owner(uuid, int), pgflow_public.forget_owner(uuid, int) to service_role;

-- Workers with a secret key.

grant usage on schema pgflow_worker to service_role;

grant execute on function
  pgflow.register_flow(jsonb),
  pgflow.register_worker(uuid, text, text[]),
  pgflow.settle_and_claim(jsonb, text[], int, uuid, int, int, boolean),
  pgflow.heartbeat(uuid, jsonb, int),
  pgflow.hand_back(jsonb),
  pgflow.report_progress(jsonb),
  pgflow.fetch_value(uuid, text, text),
  pgflow.tick(int),
  pgflow.next_due_in(),
  pgflow.stop_worker(uuid),
  pgflow_worker.schema_version(),
  pgflow_worker.register_flow(jsonb),
  pgflow_worker.register_worker(uuid, text, text[]),
  pgflow_worker.settle_and_claim(jsonb, text[], int, uuid, int, int),
  pgflow_worker.heartbeat(uuid, jsonb, int),
  pgflow_worker.hand_back(jsonb),
  pgflow_worker.report_progress(jsonb),
  pgflow_worker.fetch_value(uuid, text, text),
  pgflow_worker.tick(int),
  pgflow_worker.stop_worker(uuid)
to service_role;
