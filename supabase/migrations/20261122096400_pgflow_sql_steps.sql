-- Chapter 19: steps whose work is an SQL function, which the clock calls.

-- The tasks of SQL steps that have started: each waits for the next tick.
create function pgflow.create_sql_tasks(steps pgflow.step_key[], as_of timestamptz, delay int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return;
end
$$;

-- Calls the functions of SQL steps that are due, up to `quantity`; answers how many.
create function pgflow.call_functions(quantity int)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return 0;
end
$$;
