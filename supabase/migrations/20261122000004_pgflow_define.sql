-- Chapter 4: definitions. Steps are added in topological order, which is what forbids cycles.
-- A repeated call changes nothing; a different shape for an existing slug is an error that says what differs.

-- Defines a flow, and its queue.
--   select pgflow.create_flow('analyze_document', max_attempts => 5, start_role => 'authenticated');
create function pgflow.create_flow(
  flow_slug text,
  max_attempts int default 3,
  base_delay numeric default 5,
  timeout int default 60,
  start_role text default 'service_role',
  broadcast text default 'watched'
)
returns pgflow.flows
language plpgsql
set search_path = ''
as $$
declare
  flow pgflow.flows;
begin
  perform pgflow.assert_valid_slug(create_flow.flow_slug);
  -- Workers that start together define the same flow.
  perform pg_advisory_xact_lock(hashtextextended('pgflow.create_flow', 0));

  select f.* into flow from pgflow.flows f where f.flow_slug = create_flow.flow_slug;
  if not found then
    insert into pgflow.flows (flow_slug, queue_name, opt_max_attempts, opt_base_delay, opt_timeout, start_role, broadcast)
    values (
      create_flow.flow_slug, pgflow.queue_name_for(create_flow.flow_slug),
      create_flow.max_attempts, create_flow.base_delay, create_flow.timeout, create_flow.start_role, create_flow.broadcast
    )
    returning * into flow;
    perform pgmq.create(flow.queue_name);
  end if;
  return flow;
exception
  when check_violation or not_null_violation then
    raise exception using
      errcode = 'PT400',
      message = format('flow "%s" has an invalid option', create_flow.flow_slug),
      detail = sqlerrm,
      hint = 'max_attempts and timeout (seconds) are at least 1, base_delay (seconds) at least 0, start_role is service_role, authenticated or anon, broadcast is watched, always or never.';
end
$$;
comment on function pgflow.create_flow is 'Defines a flow with the defaults of its steps, in seconds; idempotent.';

-- Adds a step that waits for deps, all of them added before it.
--   select pgflow.add_step('analyze_document', 'report', deps_slugs => array['headings', 'links']);
create function pgflow.add_step(
  flow_slug text,
  step_slug text,
  deps_slugs text[],
  max_attempts int default null,
  base_delay numeric default null,
  timeout int default null,
  start_delay int default null
)
returns pgflow.steps
language plpgsql
set search_path = ''
as $$
declare
  step pgflow.steps;
  wanted text[] := (select coalesce(array_agg(dep order by dep), '{}') from unnest(add_step.deps_slugs) dep);
  existing text[];
  problem text;
begin
  perform pgflow.assert_valid_slug(add_step.step_slug);
  -- Conflicts with the key share that a starting run takes: the shape cannot change under it.
  perform from pgflow.flows f where f.flow_slug = add_step.flow_slug for update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('flow "%s" does not exist', add_step.flow_slug),
      hint = 'Define it first: select pgflow.create_flow(…).';
  end if;

  select s.* into step from pgflow.steps s
  where s.flow_slug = add_step.flow_slug and s.step_slug = add_step.step_slug;
  if found then
    select coalesce(array_agg(d.dep_slug order by d.dep_slug), '{}') into existing from pgflow.deps d
    where d.flow_slug = add_step.flow_slug and d.step_slug = add_step.step_slug;
    if existing <> wanted then
      raise exception using
        errcode = 'PT409',
        message = format('the shape of flow "%s" differs: step "%s" depends on %s, not on %s',
          add_step.flow_slug, add_step.step_slug, existing, wanted),
        hint = 'A flow''s shape is immutable: define the changed flow under a new slug.';
    end if;
    return step;
  end if;

  problem := case
    when array_position(wanted, null) is not null then 'has a dep that is null'
    when cardinality(wanted) <> (select count(distinct dep) from unnest(wanted) dep) then 'names a dep twice'
    when add_step.step_slug = any (wanted) then 'depends on itself'
    else (
      select format('depends on "%s", which is not a step of the flow', dep) from unnest(wanted) dep
      where not exists (
        select from pgflow.steps s where s.flow_slug = add_step.flow_slug and s.step_slug = dep
      )
      limit 1
    )
  end;
  if problem is not null then
    raise exception using
      errcode = 'PT400',
      message = format('step "%s" of flow "%s" %s', add_step.step_slug, add_step.flow_slug, problem),
      hint = 'Add steps in topological order, each dep once and before the steps that wait for it.';
  end if;
  if exists (select from pgflow.runs r where r.flow_slug = add_step.flow_slug) then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" has runs: step "%s" cannot be added to it', add_step.flow_slug, add_step.step_slug),
      hint = 'A flow''s shape is immutable: define the changed flow under a new slug.';
  end if;

  insert into pgflow.steps (
    flow_slug, step_slug, step_index, deps_count, opt_max_attempts, opt_base_delay, opt_timeout, opt_start_delay
  )
  select add_step.flow_slug, add_step.step_slug, count(*), cardinality(wanted),
         add_step.max_attempts, add_step.base_delay, add_step.timeout, add_step.start_delay
  from pgflow.steps s where s.flow_slug = add_step.flow_slug
  returning * into step;
  insert into pgflow.deps (flow_slug, dep_slug, step_slug)
  select add_step.flow_slug, dep, add_step.step_slug from unnest(wanted) dep;
  return step;
exception
  when check_violation then
    raise exception using
      errcode = 'PT400',
      message = format('step "%s" of flow "%s" has an invalid option', add_step.step_slug, add_step.flow_slug),
      detail = sqlerrm,
      hint = 'max_attempts and timeout (seconds) are at least 1, base_delay and start_delay (seconds) at least 0.';
end
$$;
comment on function pgflow.add_step(text, text, text[], int, numeric, int, int) is
  'Adds a step that waits for deps_slugs; options that are null are the flow''s; idempotent.';

-- Adds a root step.
--   select pgflow.add_step('analyze_document', 'read_file');
create function pgflow.add_step(
  flow_slug text,
  step_slug text,
  max_attempts int default null,
  base_delay numeric default null,
  timeout int default null,
  start_delay int default null
)
returns pgflow.steps
language sql
set search_path = ''
as $$
  select pgflow.add_step(flow_slug, step_slug, '{}'::text[], max_attempts, base_delay, timeout, start_delay)
$$;
comment on function pgflow.add_step(text, text, int, numeric, int, int) is 'Adds a step that waits for nothing; idempotent.';
