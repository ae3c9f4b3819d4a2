import { readdirSync, readFileSync } from 'node:fs'
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
  return percentile(values, 50)
}

/** The value below which `percent` of the values are, interpolated. */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const position = ((sorted.length - 1) * percent) / 100
  const lower = sorted[Math.floor(position)] ?? Number.NaN
  const upper = sorted[Math.ceil(position)] ?? Number.NaN
  return lower + (upper - lower) * (position % 1)
}

/** `1,234 (1,100 … 1,300)`: median, minimum, maximum; of one value, the value. */
export function spread(values: readonly number[], digits = 0): string {
  const text = (value: number) => value.toLocaleString('en', { maximumFractionDigits: digits })
  if (values.length === 1) return text(median(values))
  return `${text(median(values))} (${text(Math.min(...values))} … ${text(Math.max(...values))})`
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): void {
  console.log(tableOf(head, rows))
}

/** A table in Markdown. */
export function tableOf(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

/**
 * Milliseconds of CPU that a process has used, and its children, those that have ended included; on Linux, else 0.
 * Give it a Postgres server's process to get what its backends used.
 */
export function cpuOf(pid: number): number {
  const ticks = (fields: readonly string[], from: number, to: number) =>
    fields.slice(from, to).reduce((sum, field) => sum + Number(field), 0)
  try {
    // After the command in parentheses: state, parent, …; 11 to 14 are utime, stime, cutime and cstime.
    const statOf = (id: string | number) =>
      readFileSync(`/proc/${id}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .trim()
        .split(' ')
    let sum = ticks(statOf(pid), 11, 15)
    for (const id of readdirSync('/proc')) {
      if (!/^\d+$/.test(id)) continue
      try {
        const fields = statOf(id)
        if (Number(fields[1]) === pid) sum += ticks(fields, 11, 13)
      } catch {
        // It has ended.
      }
    }
    return sum * 10
  } catch {
    return 0
  }
}
