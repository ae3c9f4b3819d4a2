-- All tables at once, before anything changes: so no worker and no start meets a half, nor deadlocks with this. Each attempt
-- waits half a second at most, since everybody else queues behind it; then it lets go and tries again, for 30 seconds, or as
-- long as the setting pgflow.lock_patience says.
do $$
declare
  tables text;
  patience interval := coalesce(nullif(current_setting('pgflow.lock_patience', true), ''), '30 seconds');
  deadline timestamptz := clock_timestamp() + patience;
begin
  select string_agg(format('only %s', c.oid::regclass), ', ' order by c.oid) into tables
  from pg_class c
  where c.relnamespace = to_regnamespace('pgflow') and c.relkind = 'r'
     or c.oid = to_regclass('realtime.messages') and has_table_privilege(c.oid, 'update');
  while tables is not null loop
    begin
      perform set_config('lock_timeout', '500ms', true);
      execute format('lock table %s in access exclusive mode', tables);
      exit;
    exception
      when lock_not_available or deadlock_detected then
        if clock_timestamp() > deadline then
          raise exception using
            errcode = 'PT409',
            message = format('other transactions have held tables of pgflow for %s; nothing was changed', patience),
            detail = 'Held by: ' || (
              select string_agg(format('pid %s, open since %s: %s', a.pid, a.xact_start, left(a.query, 100)), '; ')
              from pg_stat_activity a
              where a.pid <> pg_backend_pid() and a.pid in (
                select l.pid from pg_locks l join pg_class c on c.oid = l.relation
                where l.granted and c.relnamespace = to_regnamespace('pgflow')
              )
            ),
            hint = 'Try again when they have ended, or end them: select pg_terminate_backend(pid).';
        end if;
    end;
    perform pg_sleep(0.1 + random() * 0.2);
  end loop;
end
$$;
