import type { Sql } from 'postgres'
import { CommandError, type Io } from './command.ts'
import { problemOf } from './database.ts'
import { countRuns, listRuns, type RunFilter, runIds } from './queries.ts'
import { lineOfCount, lineOfRun } from './runs-text.ts'

/** So many runs of a preview are shown. */
const shown = 5

/** So many calls are sent before their answers are waited for. */
const atOnce = 50

/** So many failures are told one by one. */
const told = 20

export interface Change {
  readonly action: 'cancel' | 'retry'
  readonly filter: RunFilter
  apply(run_id: string): Promise<void>
  readonly dryRun: boolean
  /** Without asking. */
  readonly yes: boolean
}

/**
 * Shows which runs it is about, asks, and then changes one after the other, each in a transaction of its own.
 *
 * @throws CommandError if some could not be changed, or nobody can be asked
 */
export async function changeRuns(
  sql: Sql,
  { action, filter, apply, dryRun, yes }: Change,
  io: Io,
): Promise<void> {
  const ids = await runIds(sql, filter)
  if (ids.length === 0) return io.note(`no runs to ${action}`)
  for (const count of await countRuns(sql, ids)) io.out(lineOfCount(count))
  for (const run of await listRuns(sql, { ...filter, limit: Math.min(shown, ids.length) }))
    io.out(lineOfRun(run))
  if (ids.length > shown) io.out(`… and ${ids.length - shown} more`)
  if (dryRun) return
  if (!yes && !(await agrees(`${action === 'cancel' ? 'Cancel' : 'Retry'} ${runs(ids.length)}?`, io))) {
    return io.note('nothing was changed')
  }
  const failures = await applyAll(ids, apply, io)
  const done = `${runs(ids.length - failures)} ${action === 'cancel' ? 'cancelled' : 'retried'}`
  if (failures > 0) throw new CommandError(`${done}, ${failures} failed`)
  io.out(done)
}

async function agrees(question: string, { ask }: Io): Promise<boolean> {
  if (ask === undefined)
    throw new CommandError(
      'there is no terminal to ask for confirmation: add --yes, or --dry-run to see what would change',
    )
  return ask(question)
}

/** How many failed. */
async function applyAll(ids: readonly string[], apply: Change['apply'], io: Io): Promise<number> {
  let failures = 0
  let saidAt = Date.now()
  for (let n = 0; n < ids.length; n += atOnce) {
    const batch = ids.slice(n, n + atOnce)
    const results = await Promise.allSettled(batch.map(apply))
    results.forEach((result, index) => {
      if (result.status === 'fulfilled' || ++failures > told) return
      io.note(`${batch[index]}: ${problemOf(result.reason)}`)
    })
    if (Date.now() - saidAt < 1_000) continue
    saidAt = Date.now()
    io.note(`${n + batch.length} of ${ids.length}`)
  }
  if (failures > told) io.note(`… and ${failures - told} more failures`)
  return failures
}

function runs(count: number): string {
  return count === 1 ? '1 run' : `${count} runs`
}
