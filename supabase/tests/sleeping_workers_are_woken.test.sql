begin;
select plan(17);


select is(
  pgflow.keep_worker_awake(),
  'not scheduled; missing: the extension pg_cron; the extension pg_net; the extension supabase_vault',
  'without the extensions it says what is missing'
);
select throws_ok('select pgflow.wake_worker()', 'PT404', 'no worker can be woken', 'and nothing can be called');

-- Stand-ins with the signatures of the extensions.
create schema cron;
create table cron.jobs (name text primary key, schedule text, command text);
create function cron.schedule(schedule text, command text) returns bigint language sql as $$ select 1 / 0::bigint $$;
create function cron.schedule(job_name text, schedule text, command text) returns bigint language sql as $$
  insert into cron.jobs values (job_name, schedule, command)
  on conflict (name) do update set schedule = excluded.schedule, command = excluded.command returning 1
$$;
create schema vault;
create table vault.secrets (name text, secret text);
create view vault.decrypted_secrets as select name, secret as decrypted_secret from vault.secrets;
create schema net;
create table net.requests (id bigint generated always as identity, url text, body jsonb, headers jsonb, timeout_milliseconds int);
create function net.http_post(
  url text,
  body jsonb default '{}',
  params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}',
  timeout_milliseconds int default 5000
) returns bigint language sql as $$
  insert into net.requests (url, body, headers, timeout_milliseconds)
  values (http_post.url, http_post.body, http_post.headers, http_post.timeout_milliseconds) returning id
$$;

select is(
  pgflow.keep_worker_awake(),
  'not scheduled; missing: the secret pgflow_worker_url in the Vault; the secret pgflow_worker_secret in the Vault',
  'the secrets are missed too'
);
select is_empty('select from cron.jobs', 'nothing is scheduled by half');

insert into vault.secrets values ('pgflow_worker_url', 'https://example.test/flow-worker'), ('pgflow_worker_secret', 'open sesame');
select is(
  pgflow.keep_worker_awake(), 'scheduled as pgflow_wake_worker, every 10 seconds', 'with everything there it schedules'
);
select pgflow.keep_worker_awake('1 minute');
select results_eq(
  'select name, schedule, command from cron.jobs',
  $$ values ('pgflow_wake_worker', '1 minute', 'select pgflow.wake_worker()') $$,
  'one job, however often it is called'
);

select pgflow.create_flow('f'), pgflow.add_step('f', 'a');
select pgflow.create_flow('other'), pgflow.add_step('other', 'a');
select is(pgflow.wake_worker(), false, 'without tasks nobody is woken');

select pgflow.start_flow('f', '1', delay => 60);
select is(pgflow.wake_worker(), false, 'nor for tasks that are not due');

select pgflow.start_flow('f', '1');
select is(pgflow.wake_worker(), true, 'for a task that waits somebody is');
select results_eq(
  'select url, headers, timeout_milliseconds from net.requests',
  $$ values (
       'https://example.test/flow-worker',
       '{"content-type": "application/json", "authorization": "Bearer open sesame"}'::jsonb,
       10000
     ) $$,
  'by one call, with the secret'
);

select pgflow.register_worker('30000000-0000-4000-8000-000000000001', 'w', array['other']);
select is(pgflow.wake_worker(), true, 'a worker for another flow does not count');
select pgflow.register_worker('30000000-0000-4000-8000-000000000002', 'w', array['other', 'f']);
select is(pgflow.wake_worker(), false, 'one for this flow does');
update pgflow.workers set last_heartbeat_at = pgflow.now() - interval '31 seconds';
select is(pgflow.wake_worker(), true, 'while it is heard of');
update pgflow.workers set last_heartbeat_at = pgflow.now();
select pgflow.stop_worker('30000000-0000-4000-8000-000000000002');
select is(pgflow.wake_worker(), true, 'and until it stops');

-- A sleep that is over makes tasks.
select pgflow.create_flow('s'), pgflow.add_step('s', 'pause', step_type => 'sleep', sleep_for => 60), pgflow.add_step('s', 'then', array['pause']);
delete from pgflow.runs;
select pgmq.purge_queue('f');
select pgflow.start_flow('s', '1');
select is(pgflow.wake_worker(), false, 'a sleep wakes nobody');
update pgflow.step_tasks set due_at = now() where status = 'waiting';
select is(pgflow.wake_worker(), true, 'until it is over');

delete from vault.secrets where name = 'pgflow_worker_secret';
select throws_ok('select pgflow.wake_worker()', 'PT404', 'no worker can be woken', 'a secret that is gone is an error');

select * from finish();
rollback;
