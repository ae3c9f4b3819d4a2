-- Chapter 20: what the completed steps of a run have done is undone, by a run of its own.

-- Starts the runs that undo others, up to `quantity`; answers how many.
create function pgflow.begin_undos(quantity int)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return 0;
end
$$;
