import type { Sql } from 'postgres'

/** What one measured piece of work cost. */
export interface Cost {
  seconds: number
  /** Bytes of write-ahead log. */
  wal: number
}

/** Times a piece of work, and the log that the server wrote meanwhile. */
export async function measure(sql: Sql, work: () => Promise<unknown>): Promise<Cost> {
  const [before] = await sql`select pg_current_wal_insert_lsn() as lsn`
  const began = performance.now()
  await work()
  const seconds = (performance.now() - began) / 1000
  const [after] =
    await sql`select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), ${before?.lsn})::float8 as wal`
  return { seconds, wal: after?.wal }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** The value below which this share of all values is, such as 0.99: the nearest that there is. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN
}

/** `1,234 (1,100 … 1,300)`: median, minimum, maximum. */
export function spread(values: readonly number[], digits = 0): string {
  const text = (value: number) => value.toLocaleString('en', { maximumFractionDigits: digits })
  return `${text(median(values))} (${text(Math.min(...values))} … ${text(Math.max(...values))})`
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  console.log([line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n'))
}
