-- Chapter 10: singletons. Of a flow that has them one run goes on for each key; the flow says what becomes of a further start.

-- Begins up to `quantity` runs that have waited for a time or another run, whose alarms are due; answers how many.
create function pgflow.begin_runs(quantity int)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return 0;
end
$$;
