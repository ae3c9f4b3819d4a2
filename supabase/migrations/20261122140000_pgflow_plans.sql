-- Chapter 20: plans.
--
-- What the engine does is plpgsql, since Postgres keeps plans of plpgsql only. A kept plan is made when a session first
-- needs it; one from when the tables were empty would read them whole for ever. So the engine's entry points ask for
-- index access, joins in the written order and generic plans, whatever the statistics say; what they call inherits it.
-- jit is off because switched-off nodes look expensive. Replacing one of these functions loses its settings: say them again.

do $$
declare
  entry_point regprocedure;
begin
  foreach entry_point in array array[
    'pgflow.start_runs', 'pgflow.settle', 'pgflow.claim_tasks', 'pgflow.keep_errors', 'pgflow.extend_leases',
    'pgflow.hand_back', 'pgflow.report_progress', 'pgflow.fetch_value', 'pgflow.cancel_run', 'pgflow.retry_run',
    'pgflow.append_run_events', 'pgflow.append_step_events', 'pgflow.tg_run_events__after_insert'
  ]::regproc[]::oid[]::regprocedure[] loop
    execute format('alter function %s set plan_cache_mode = force_generic_plan', entry_point);
    execute format('alter function %s set enable_seqscan = off', entry_point);
    execute format('alter function %s set enable_bitmapscan = off', entry_point);
    execute format('alter function %s set enable_hashjoin = off', entry_point);
    execute format('alter function %s set enable_mergejoin = off', entry_point);
    execute format('alter function %s set enable_material = off', entry_point);
    execute format('alter function %s set join_collapse_limit = 1', entry_point);
    execute format('alter function %s set jit = off', entry_point);
  end loop;
end
$$;
