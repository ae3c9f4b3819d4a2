-- Chapter 33: hooks. Functions that a project may replace: can_access_run and can_start_in_group for teams, may_start for quotas.
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
