import type pg from 'pg'

const EXPIRED = `
  select relname from pg_class
  where oid in (select inhrelid from pg_inherits where inhparent = 'realtime.messages'::regclass)
    and relname < 'messages_' || to_char(now() at time zone 'utc' - interval '72 hours', 'YYYY_MM_DD')`

/** Creates the days from yesterday to three days ahead, and drops those that ended 72 hours ago. */
export async function maintainPartitions(client: pg.Client): Promise<void> {
  await client.query(`select realtime_local.create_partitions((now() at time zone 'utc')::date - 1, 5)`)
  const { rows } = await client.query(EXPIRED)
  for (const { relname } of rows)
    await client.query(`drop table realtime.${client.escapeIdentifier(relname)}`)
}
