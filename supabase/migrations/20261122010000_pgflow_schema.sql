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
--   select pgflow.schema_version();  -- 5
create function pgflow.schema_version()
returns int
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 5
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
