-- Chapter 17: slots. Tasks of limited steps wait for a free slot of each of their keys.

-- Admits up to `quantity` tasks that wait for slots, of the keys whose alarms are due; answers how many.
create function pgflow.admit_tasks(quantity int)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return 0;
end
$$;

-- Lets all keys of a limit be looked at, after it has changed.
create function pgflow.recheck_limit(limit_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return;
end
$$;
