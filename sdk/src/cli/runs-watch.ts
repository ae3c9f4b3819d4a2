import { setTimeout as pause } from 'node:timers/promises'
import type { Sql } from 'postgres'
import { isTransient } from '../worker/faults.ts'
import { CommandError, type Io } from './command.ts'
import { problemOf } from './database.ts'
import { eventsAfter } from './queries.ts'
import { lineOfEvent } from './runs-text.ts'

/** Milliseconds between two looks, right after an event and at most. */
const pauses = { shortest: 100, longest: 1_000 }

/**
 * Writes the events of a run as they happen, those that did before included, until it has ended.
 *
 * @throws CommandError if the run failed, was cancelled or deleted
 */
export async function watchRun(sql: Sql, run_id: string, io: Io, json: boolean): Promise<void> {
  let seq = 0
  let wait = pauses.shortest
  let isLost = false
  for (;;) {
    try {
      const { status, error, events } = await eventsAfter(sql, run_id, seq)
      isLost = false
      for (const event of events) io.out(json ? JSON.stringify(event) : lineOfEvent(event))
      seq = events.at(-1)?.seq ?? seq
      if (events.length > 0) wait = pauses.shortest
      else if (status === 'completed') return
      else if (status !== 'started')
        throw new CommandError([`run ${run_id} ${ending(status)}`, ...(error ? [error] : [])].join(': '))
      if (events.length > 0 && status !== 'started') continue
    } catch (cause) {
      if (cause instanceof CommandError || !isTransient(cause) || seq === 0) throw cause
      if (!isLost) io.note(`${problemOf(cause)} – trying again`)
      isLost = true
    }
    await pause(wait)
    wait = Math.min(wait * 1.5, pauses.longest)
  }
}

function ending(status: string): string {
  return status === 'cancelled' ? 'was cancelled' : status
}
