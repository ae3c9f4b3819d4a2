-- Removes everything that pgflow has made, with all runs: its schemas, the queues of its flows, its policy on
-- realtime.messages, and the jobs of pg_cron that call it. What depends on it goes too, for instance triggers on its tables
-- and functions that take its types. Extensions, the roles of the API and the secrets in the Vault stay, since others may use
-- them. It runs also where a part is missing.
do $$
begin
  if nullif(current_setting('pgflow.uninstall', true), '') is null then
    raise exception using
      errcode = 'PT400',
      message = 'pgflow has to be removed in one transaction',
      hint = 'Apply it as a migration (supabase db push), or with psql --single-transaction.';
  end if;
  if to_regnamespace('pgflow') is not null and to_regprocedure('pgflow.schema_version()') is null
     and obj_description(to_regnamespace('pgflow'), 'pg_namespace') not like 'Workflow engine: definitions, %' is not false
  then
    raise exception using
      errcode = 'PT409',
      message = 'the schema "pgflow" of this database is not that of @pgflow/sdk; nothing was removed',
      hint = 'See docs/moving-from-pgflow-core.md.';
  end if;
end
$$;
