/** The write-ahead log that steps write, as a whole and by relation. */
import type { LocalSupabase } from '@pgflow/local'
import type { Sql } from 'postgres'
import { connect } from '../lib/connect.ts'

export interface Written {
  /** Bytes a step. */
  bytes: number
  /** The same by relation, an index with its table; `rest` is what belongs to none, commits for instance. */
  relations: Map<string, number>
}

export interface Log {
  unwatched: Written
  broadcast: Written
}

/** Does work, each of which says how many steps it took. */
export async function logOf(
  stack: LocalSupabase,
  work: Record<keyof Log, () => Promise<number>>,
): Promise<Log> {
  const sql = connect(stack.adminDbUrl, 1)
  try {
    await sql`create extension if not exists pg_walinspect`
    return { unwatched: await written(sql, work.unwatched), broadcast: await written(sql, work.broadcast) }
  } finally {
    await sql.end()
  }
}

async function written(sql: Sql, work: () => Promise<number>): Promise<Written> {
  const [before] = await sql`select pg_current_wal_insert_lsn()::text as lsn`
  const steps = await work()
  const [after] = await sql`
    select pg_current_wal_insert_lsn()::text as lsn,
           pg_wal_lsn_diff(pg_current_wal_insert_lsn(), ${before?.lsn}::pg_lsn)::float8 as bytes`
  await sql`select pg_switch_wal()`
  const relations = await sql`
    with record as (
      select w.record_length, (regexp_match(w.block_ref, 'rel 1663/\\d+/(\\d+)'))[1]::oid as filenode
      from pg_get_wal_records_info(${before?.lsn}::pg_lsn, ${after?.lsn}::pg_lsn) w
    )
    select coalesce(t.relname || case when c.relkind = 'i' then ', indexes' else '' end, 'rest') as name,
           sum(r.record_length)::float8 as bytes
    from record r
    left join pg_class c on c.relfilenode = r.filenode and r.filenode <> 0
    left join pg_index i on i.indexrelid = c.oid
    left join pg_class t on t.oid = coalesce(i.indrelid, c.oid)
    group by 1 order by 2 desc`
  return {
    bytes: after?.bytes / steps,
    relations: new Map(relations.map(({ name, bytes }) => [name, bytes / steps])),
  }
}
