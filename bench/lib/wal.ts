import type { Sql } from 'postgres'

/** The write-ahead log of some work, in bytes. */
export interface Written {
  bytes: number
  /** The same by relation, the indexes of a table by themselves; `rest` is what belongs to none, commits for instance. */
  relations: Map<string, number>
}

/** The log that a server writes during some work. @param sql a superuser's connection */
export async function writtenBy(sql: Sql, work: () => Promise<unknown>): Promise<Written> {
  await sql`create extension if not exists pg_walinspect`
  const [before] = await sql`select pg_current_wal_insert_lsn()::text as lsn`
  await work()
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
  return { bytes: after?.bytes, relations: new Map(relations.map(({ name, bytes }) => [name, bytes])) }
}
