import type { Sql } from 'postgres'

/** A limit as it is set, with the keys of it that tasks use. */
export interface ListedLimit {
  /** `null` for the concurrency of maps, of which each has its own. */
  readonly limit_slug: string | null
  readonly running: number | null
  readonly rate_count: number | null
  /** Seconds. */
  readonly rate_period: number | null
  /** Who has set it: the definition of a flow, or SQL. */
  readonly made_by: 'flow' | 'sql' | null
  /** How many keys are in use. */
  readonly keys_in_use: number
  /** Up to ten of them: those for which most tasks wait. */
  readonly keys: readonly LimitKey[]
}

/** What tasks hold slots of, or wait for. */
export interface LimitKey {
  readonly limit_slug: string | null
  /** The value for which it counts; empty where all tasks share it. Of the concurrency of a map its run and step. */
  readonly value: string
  /** How many tasks hold a slot. */
  readonly running: number
  readonly running_limit: number | null
  readonly rate_count: number | null
  readonly rate_period: number | null
  readonly waiting: number
  readonly oldest_waiting_since: string | null
}

/** All limits, or those of a flow or alias. */
export function listLimits(sql: Sql, flow: string | null): Promise<ListedLimit[]> {
  return select(
    sql,
    sql`${flow}::text is null or l.limit_slug in (
      select u.limit_slug from pgflow.limit_uses u join pgflow.flows f using (flow_slug) where ${flow} in (f.flow_slug, f.alias)
    )`,
    sql`${flow}::text is null or split_part(n.value, ':', 1) in (
      select r.run_id::text from pgflow.runs r join pgflow.flows f using (flow_slug)
      where r.status = 'started' and ${flow} in (f.flow_slug, f.alias)
    )`,
  )
}

export async function getLimit(sql: Sql, slug: string): Promise<ListedLimit | undefined> {
  const [limit] = await select(sql, sql`l.limit_slug = ${slug}`, sql`false`)
  return limit
}

async function select(
  sql: Sql,
  isWanted: ReturnType<Sql>,
  isWantedMap: ReturnType<Sql>,
): Promise<ListedLimit[]> {
  const rows = await sql<{ value: ListedLimit }[]>`
    with
      key as materialized (
        select n.*, row_number() over of_limit as place
        from pgflow.limits_now n
        where n.limit_slug is not null or ${isWantedMap}
        window of_limit as (partition by n.limit_slug order by n.waiting desc, n.running desc, n.slot_key)
      ),
      every as (
        select l.limit_slug, l.running, l.rate_count, l.rate_period, l.made_by from pgflow.limits l where ${isWanted}
        union all
        select null, null, null, null, null where exists (select from key k where k.limit_slug is null)
      )
    select to_jsonb(l) || jsonb_build_object(
      'keys_in_use', (select count(*) from key k where k.limit_slug is not distinct from l.limit_slug),
      'keys', (
        select coalesce(jsonb_agg(to_jsonb(k) - array['place', 'slot_key'] order by k.place), '[]')
        from key k
        where k.limit_slug is not distinct from l.limit_slug and k.place <= 10
      )
    ) as value
    from every l
    order by l.limit_slug
    limit 1000`
  return rows.map(({ value }) => value)
}

/** Sets the whole limit: what is `null` is not limited. */
export async function setLimit(
  sql: Sql,
  slug: string,
  running: number | null,
  rate: { readonly count: number; readonly period: number } | null,
): Promise<void> {
  await sql`select (pgflow.set_limit(
    limit_slug => ${slug}, running => ${running}, rate_count => ${rate?.count ?? null}, rate_period => ${rate?.period ?? null}
  ))`
}

/** Gives it back to the definitions of flows. */
export async function resetLimit(sql: Sql, slug: string): Promise<void> {
  await sql`select (pgflow.reset_limit(limit_slug => ${slug}))`
}
