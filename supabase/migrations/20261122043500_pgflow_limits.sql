-- Chapter 7: limits as they are defined: how many tasks of each key run at the same time, and how many start in a period.
--
-- A limit is a row of pgflow.limits, and belongs to whoever made it: the definitions of flows, of which the last one that is
-- registered decides, or SQL (set_limit), which no definition changes. limit_uses says which steps have it.

-- Sets a limit, whatever definitions say, until reset_limit. What is left out is not limited.
--   select pgflow.set_limit('openai', running => 20, rate_count => 3000, rate_period => 60);
create function pgflow.set_limit(limit_slug text, running int default null, rate_count int default null, rate_period int default null)
returns pgflow.limits
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  problem text := pgflow.limits_problem(
    jsonb_build_array(jsonb_build_object(
      'limit_slug', coalesce(set_limit.limit_slug, ''), 'running', set_limit.running,
      'rate_count', set_limit.rate_count, 'rate_period', set_limit.rate_period
    )),
    '{run}'
  );
  made pgflow.limits;
begin
  if problem is not null then
    raise exception using
      errcode = 'PT400',
      message = format('the limit cannot be set: %s', problem),
      hint = 'Give running, or rate_count and rate_period, or all of them.';
  end if;
  perform pgflow.lock_limits();
  perform pgflow.write_limits(array[row(
    set_limit.limit_slug, set_limit.running, set_limit.rate_count, set_limit.rate_period, 'sql', pgflow.now()
  )::pgflow.limits]);
  select l.* into made from pgflow.limits l where l.limit_slug = set_limit.limit_slug;
  return made;
end
$$;
comment on function pgflow.set_limit is
  'Sets how many tasks of each key of a limit run at the same time, and how many start in rate_period seconds, whatever definitions say.';

-- Gives a limit back to the definitions: the next one that is registered decides. One that no flow uses is deleted.
--   select pgflow.reset_limit('openai');
create function pgflow.reset_limit(limit_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.lock_limits();
  update pgflow.limits l set made_by = 'flow' where l.limit_slug = reset_limit.limit_slug;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('limit %s does not exist', coalesce(to_json(left(reset_limit.limit_slug, 140))::text, 'null')),
      hint = 'Check the slug: select limit_slug, made_by from pgflow.limits.';
  end if;
  perform pgflow.delete_unused_limits(array[reset_limit.limit_slug]);
end
$$;
comment on function pgflow.reset_limit is 'Gives a limit that set_limit has set back to the definitions of flows.';

-- Writes limits that are not like that already.
create function pgflow.write_limits(wanted pgflow.limits[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  changed text[];
begin
  with
    written as (
      insert into pgflow.limits as l
      select w.* from unnest(wanted) w
      where not exists (
        select from pgflow.limits l
        where l.limit_slug = w.limit_slug
          and (l.running, l.rate_count, l.rate_period, l.made_by) is not distinct from (w.running, w.rate_count, w.rate_period, w.made_by)
      )
      on conflict on constraint limits_pkey do update
      set running = excluded.running, rate_count = excluded.rate_count, rate_period = excluded.rate_period,
          made_by = excluded.made_by, changed_at = excluded.changed_at
      where l.made_by = 'flow' or excluded.made_by = 'sql'
      returning l.limit_slug
    )
  select array_agg(w.limit_slug) into changed from written w;
  perform pgflow.recheck_limit(slug) from unnest(changed) slug;
end
$$;

-- Deletes those of the limits that belong to definitions of which none uses them.
create function pgflow.delete_unused_limits(limit_slugs text[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  deleted text[];
begin
  with
    unused as (
      delete from pgflow.limits l
      where l.limit_slug = any (delete_unused_limits.limit_slugs) and l.made_by = 'flow'
        and not exists (select from pgflow.limit_uses u where u.limit_slug = l.limit_slug)
      returning l.limit_slug
    )
  select array_agg(u.limit_slug) into deleted from unused u;
  perform pgflow.recheck_limit(slug) from unnest(deleted) slug;
end
$$;

-- The limits of a flow and its steps, as its definition says; what is as it should be is not written again. A version that is not the
-- newest one changes no limit that exists, so that its workers do not undo what the newest says.
create function pgflow.update_limits(wanted jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  slug text := wanted ->> 'flow_slug';
  is_newest boolean := slug = pgflow.newest_version(coalesce(wanted ->> 'alias', slug));
begin
  if pgflow.limits_differ(wanted, is_newest) then
    perform pgflow.lock_limits();
    perform pgflow.write_limits(array(
      select distinct row(d.limit_slug, d.running, d.rate_count, d.rate_period, 'flow', pgflow.now())::pgflow.limits
      from pgflow.declared_limits(wanted) d
      left join pgflow.limits l using (limit_slug)
      where l.limit_slug is null or is_newest and l.made_by = 'flow'
    ));
    perform pgflow.delete_unused_limits(pgflow.update_limit_uses(wanted));
  end if;

  update pgflow.steps s set is_limited = d.is_limited
  from (
    select s.step_slug, s.opt_concurrency is not null or s.step_type in ('single', 'map', 'loop') and exists (
      select from pgflow.limit_uses u where u.flow_slug = s.flow_slug and u.step_slug in (s.step_slug, '*')
    )
    from pgflow.steps s where s.flow_slug = slug
  ) d (step_slug, is_limited)
  where s.flow_slug = slug and s.step_slug = d.step_slug and s.is_limited <> d.is_limited;
end
$$;

-- Lets one transaction at a time change limits and who uses them.
create function pgflow.lock_limits()
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pg_advisory_xact_lock(hashtextextended('pgflow.limits', 0))
$$;

-- Whether the limits of a flow are not as its definition says.
create function pgflow.limits_differ(wanted jsonb, is_newest boolean)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
    select exists (
      select
      from pgflow.declared_limits(wanted) d
      left join pgflow.limit_uses u on u.flow_slug = wanted ->> 'flow_slug' and u.step_slug = d.step_slug and u.limit_slug = d.limit_slug
      left join pgflow.limits l on l.limit_slug = d.limit_slug
      where u.limit_slug is null or u.by_path is distinct from d.by_path
        or is_newest and l.made_by = 'flow' and (l.running, l.rate_count, l.rate_period) is distinct from (d.running, d.rate_count, d.rate_period)
    ) or exists (
      select from pgflow.limit_uses u
      where u.flow_slug = wanted ->> 'flow_slug'
        and not exists (select from pgflow.declared_limits(wanted) d where d.step_slug = u.step_slug and d.limit_slug = u.limit_slug)
    )
  );
end
$$;

-- Which limits a flow and its steps have, as its definition says; answers which ones are no longer used somewhere.
create function pgflow.update_limit_uses(wanted jsonb)
returns text[]
language sql
set search_path = pg_catalog, pg_temp
as $$
  with
    declared as (
      select wanted ->> 'flow_slug' as flow_slug, d.* from pgflow.declared_limits(wanted) d
    ),
    deleted as (
      delete from pgflow.limit_uses u
      where u.flow_slug = wanted ->> 'flow_slug' and not exists (
        select from declared d where d.step_slug = u.step_slug and d.limit_slug = u.limit_slug
      )
      returning u.limit_slug
    ),
    written as (
      insert into pgflow.limit_uses as u (flow_slug, step_slug, limit_slug, by_path)
      select d.flow_slug, d.step_slug, d.limit_slug, d.by_path
      from declared d
      left join pgflow.limit_uses u using (flow_slug, step_slug, limit_slug)
      where u.limit_slug is null or u.by_path is distinct from d.by_path
      on conflict on constraint limit_uses_pkey do update set by_path = excluded.by_path
    )
  select array_agg(distinct d.limit_slug) from deleted d
$$;
