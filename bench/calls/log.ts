/** The write-ahead log that steps write, as a whole and by relation. */
import type { LocalSupabase } from '@pgflow/local'
import type { Sql } from 'postgres'
import { connect } from '../lib/connect.ts'
import { type Written, writtenBy } from '../lib/wal.ts'

/** Bytes a step. */
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
    return {
      unwatched: await writtenByStep(sql, work.unwatched),
      broadcast: await writtenByStep(sql, work.broadcast),
    }
  } finally {
    await sql.end()
  }
}

async function writtenByStep(sql: Sql, work: () => Promise<number>): Promise<Written> {
  let steps = 0
  const { bytes, relations } = await writtenBy(sql, async () => {
    steps = await work()
  })
  return {
    bytes: bytes / steps,
    relations: new Map([...relations].map(([name, some]) => [name, some / steps])),
  }
}
