import type { Sql } from 'postgres'
import { exchanged, type Task } from './tasks.ts'

/** One tenant floods a flow, others have a hundredth of its load. */
export interface Load {
  tenants: number
  /** Tasks of each tenant but the first, which has a hundred times as many. */
  tasks: number
  /** How many tasks are worked on at the same time. */
  slots: number
}

/**
 * Jain's index of fairness: 1 if all get the same, 1/n if one gets everything.
 *
 * @example jainOf([5, 5, 5, 5]) // 1
 */
export function jainOf(shares: readonly number[]): number {
  const sum = shares.reduce((all, share) => all + share, 0)
  const squares = shares.reduce((all, share) => all + share * share, 0)
  return (sum * sum) / (shares.length * squares)
}

/**
 * The flood arrives first, then the others; work goes in rounds, of up to `slots` tasks each, until the others are done. Returns what
 * each tenant has got a round while it had tasks. Rounds are counted, not timed: it is the same on every machine.
 *
 * @param flow of one step, whose input is `{ tenant }`
 */
export async function sharesOf(sql: Sql, flow: string, { tenants, tasks, slots }: Load): Promise<number[]> {
  const loads = Array.from({ length: tenants }, (_, tenant) => (tenant === 0 ? tasks * 100 : tasks))
  for (const [tenant, load] of loads.entries()) {
    await sql`
      select count(*) from pgflow.start_flows(
        ${flow}, (select jsonb_agg(jsonb_build_object('tenant', ${tenant}::int)) from generate_series(1, ${load}::int))
      )`
  }
  const got = loads.map(() => 0)
  const lastRound = loads.map(() => 0)
  let found: Task[] = []
  for (let round = 1; got.some((count, tenant) => tenant > 0 && count < tasks); round++) {
    found = await exchanged(sql, flow, found, slots)
    if (found.length === 0) throw new Error(`round ${round} has nothing to do, after ${got}`)
    for (const { input } of found) {
      const { tenant } = (input as { run: { tenant: number } }).run
      got[tenant]! += 1
      lastRound[tenant] = round
    }
  }
  return got.map((count, tenant) => count / lastRound[tenant]!)
}
