do $$
declare
  queue text;
  job bigint;
begin
  if to_regclass('pgflow.flows') is not null and to_regclass('pgmq.meta') is not null then
    for queue in execute 'select f.queue_name from pgflow.flows f order by f.queue_name' loop
      if to_regclass(format('pgmq.%I', 'q_' || queue)) is not null then
        execute 'select pgmq.drop_queue($1)' using queue;
      end if;
      execute format('drop table if exists pgmq.%I, pgmq.%I', 'q_' || queue, 'a_' || queue);
      execute 'delete from pgmq.meta m where m.queue_name = $1' using queue;
    end loop;
  end if;
  if to_regclass('cron.job') is not null then
    for job in execute $jobs$ select j.jobid from cron.job j where j.command ~ '\mpgflow(_public|_worker)?\.' $jobs$ loop
      execute 'select cron.unschedule($1)' using job;
    end loop;
  end if;
  if to_regclass('realtime.messages') is not null then
    execute 'drop policy if exists pgflow_run_channels on realtime.messages';
  end if;
end
$$;

drop schema if exists pgflow_worker cascade;
drop schema if exists pgflow_public cascade;
drop schema if exists pgflow cascade;
