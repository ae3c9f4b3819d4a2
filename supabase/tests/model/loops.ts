/** Loops: a step that takes turns, each a task whose output is the next one's input. */
import { isDeepStrictEqual } from 'node:util'
import { contains, type Json } from './json.ts'
import type { Change, Step, Waits } from './step.ts'
import { exhausted } from './step.ts'

/** What a turn that completed means for its loop; `waits` is what the next turn waits for. */
export function afterTurn(step: Step, waits: Waits | null): Change {
  const { slug, loop } = step.definition
  const { until, max, whenExceeded } = loop!
  const { output } = step.tasks.at(-1)!
  const turns = step.tasks.length
  if (until !== undefined && containsOnTop(output, until)) return { to: 'completed', output }
  if (turns < max) return { to: 'turned', done: turns, total: max, waits }
  if (whenExceeded === 'complete') return { to: 'completed', output }
  return exhausted(step, hasNotEnded(slug, turns))
}

/** What becomes of a loop that begins, again where its run was retried, if it takes no turn. */
export function withoutTurn(step: Step): Change | undefined {
  const { slug, loop } = step.definition
  const turns = step.tasks.filter(({ status }) => status === 'completed')
  if (turns.length < loop!.max) return undefined
  if (loop!.whenExceeded === 'complete') return { to: 'completed', output: turns.at(-1)!.output }
  return { to: 'failed', error: hasNotEnded(slug, turns.length) }
}

/** The number and the input of the turn that a loop takes next: the one after the last, or that one again. */
export function nextTurn(step: Step, start: Json): { index: number; item: Json } {
  const last = step.tasks.at(-1)
  if (!last) return { index: 0, item: start }
  return last.status === 'completed'
    ? { index: last.index + 1, item: last.output }
    : { index: last.index, item: last.item }
}

function hasNotEnded(slug: string, turns: number): string {
  return `step "${slug}" has not ended after ${turns} ${turns === 1 ? 'turn' : 'turns'}`
}

/** Postgres' `@>`: on top, an array also contains a bare value. */
function containsOnTop(value: Json, fragment: Json): boolean {
  const isScalar = typeof fragment !== 'object' || fragment === null
  if (Array.isArray(value) && isScalar) return value.some((item) => isDeepStrictEqual(item, fragment))
  return contains(value, fragment)
}
