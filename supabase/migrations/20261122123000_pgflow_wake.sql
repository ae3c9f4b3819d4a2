-- Chapter 28: workers that sleep are woken, where pg_cron and pg_net are installed.
--
-- A worker in an Edge Function lives for minutes. A cron job calls the function when tasks wait and nobody is there to
-- claim them. Nothing else in pgflow needs these extensions.

-- Settles what is due, and calls the function that hosts a worker if tasks wait that no living worker serves; answers whether it
-- did. The Vault has
-- its address as `pgflow_worker_url` and its secret as `pgflow_worker_secret`.
--   select pgflow.wake_worker();
create function pgflow.wake_worker()
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  missing text[] := pgflow.missing_to_wake();
begin
  perform pgflow.tick();
  if cardinality(missing) > 0 then
    raise exception using
      errcode = 'PT404',
      message = 'no worker can be woken',
      detail = 'missing: ' || array_to_string(missing, '; '),
      hint = 'Install what is missing, or unschedule it: select cron.unschedule(''pgflow_wake_worker'').';
  end if;
  if not pgflow.is_unattended() then
    return false;
  end if;
  execute $http$
    select net.http_post(
      url => (select s.decrypted_secret from vault.decrypted_secrets s where s.name = 'pgflow_worker_url'),
      headers => jsonb_build_object('content-type', 'application/json', 'authorization', 'Bearer ' || (
        select s.decrypted_secret from vault.decrypted_secrets s where s.name = 'pgflow_worker_secret'
      )),
      timeout_milliseconds => 10000
    )
  $http$;
  return true;
end
$$;
comment on function pgflow.wake_worker is 'Settles what is due, and calls the Edge Function that hosts a worker if tasks wait that no living worker serves.';

-- Lets pg_cron call wake_worker, every 10 seconds or as said; answers what it did, or what is missing.
--   select pgflow.keep_worker_awake();
--   select pgflow.keep_worker_awake('1 minute');
create function pgflow.keep_worker_awake(every text default '10 seconds')
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  missing text[] := pgflow.missing_to_wake();
begin
  if to_regprocedure('cron.schedule(text, text, text)') is null then
    missing := 'the extension pg_cron'::text || missing;
  end if;
  if cardinality(missing) > 0 then
    return 'not scheduled; missing: ' || array_to_string(missing, '; ');
  end if;
  execute 'select cron.schedule($1, $2, $3)'
  using 'pgflow_wake_worker', keep_worker_awake.every, 'select pgflow.wake_worker()';
  return 'scheduled as pgflow_wake_worker, every ' || keep_worker_awake.every;
end
$$;
comment on function pgflow.keep_worker_awake is 'Schedules wake_worker with pg_cron, or says what is missing.';

-- What wake_worker needs and does not find.
create function pgflow.missing_to_wake()
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  missing text[] := '{}';
  secrets text[];
begin
  if to_regprocedure('net.http_post(text, jsonb, jsonb, jsonb, integer)') is null then
    missing := missing || 'the extension pg_net'::text;
  end if;
  if to_regclass('vault.decrypted_secrets') is null then
    return missing || 'the extension supabase_vault'::text;
  end if;
  execute $vault$
    select array_agg('the secret ' || wanted.name || ' in the Vault' order by wanted.name desc)
    from unnest(array['pgflow_worker_url', 'pgflow_worker_secret']) as wanted (name)
    where not exists (select from vault.decrypted_secrets s where s.name = wanted.name and s.decrypted_secret <> '')
  $vault$ into secrets;
  return missing || secrets;
end
$$;

-- Whether tasks wait, of a flow for which no worker was heard of for half a minute.
create function pgflow.is_unattended()
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  heard_of timestamptz := pgflow.now() - interval '30 seconds';
  queue text;
  waits boolean;
begin
  for queue in
    select f.queue_name from pgflow.flows f
    where not exists (
      select from pgflow.workers w
      where w.stopped_at is null and w.last_heartbeat_at > heard_of and f.flow_slug = any (w.flow_slugs)
    )
  loop
    begin
      execute format('select exists (select from pgmq.%I where vt <= $1)', 'q_' || queue) into waits using clock_timestamp();
      if waits then
        return true;
      end if;
    exception
      when undefined_table then null; -- the queue is lost, or its flow is being deleted
    end;
  end loop;
  return false;
end
$$;
