begin;
select plan(5);

select is(pgflow.schema_version(), 5, 'the version of the installed migrations');

create function pg_temp.version_for(role text)
returns int
language plpgsql
as $$
declare
  version int;
begin
  execute format('set local role %I', role);
  version := pgflow_public.schema_version();
  reset role;
  return version;
end
$$;

select is(pg_temp.version_for(role), pgflow.schema_version(), format('%s can ask for it', role))
from unnest(array['anon', 'authenticated', 'service_role']) role;

set local role service_role;
select is(pgflow_worker.schema_version(), 5, 'workers ask in their schema');
reset role;

select * from finish();
rollback;
