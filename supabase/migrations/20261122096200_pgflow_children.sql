-- Chapter 18: sub-flows. A step of a run starts runs of another flow, its children, and ends when they have ended.
--
-- A child never locks its parent, nor a parent its children: each leaves an alarm for the other, which the next tick takes.

-- The tasks of sub-flow steps that have started: each waits for a run. Those of limited steps are made by create_slot_tasks.
create function pgflow.create_child_tasks(steps pgflow.step_key[], as_of timestamptz, delay int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return;
end
$$;

-- Starts, cancels and retries children, and settles the tasks of those that have ended, up to `quantity`; answers how many.
create function pgflow.tend_children(quantity int)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return 0;
end
$$;
