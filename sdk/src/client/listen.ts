import type { Live } from './live.ts'
import { statuses } from './store.ts'
import type { RunEvent, RunEventType, StepEventType } from './types.ts'

/**
 * Calls back with each event that is wanted, once and in order: first those that made the run what it is now, then all
 * that follow. Never before `listen` has returned, and never after its undo has been called.
 */
export function listen(
  live: Live,
  wants: (event: RunEvent) => boolean,
  callback: (event: RunEvent) => unknown,
  onError: (error: unknown) => void,
): () => void {
  /** The last event that the listener was told of; after a change of users, the log is loaded again. */
  let lastSeq = 0
  let pending: readonly RunEvent[] = []
  const tell = (event: RunEvent) => {
    if (event.seq <= lastSeq) return
    lastSeq = event.seq
    if (wants(event)) (async () => callback(event))().catch(onError)
  }
  const tellPending = () => {
    const events = pending
    pending = []
    events.forEach(tell)
  }
  const remember = () => {
    pending = live.store.eventsAfter(lastSeq)
    queueMicrotask(tellPending)
  }
  const undo = [
    live.events.on('loaded', remember),
    live.events.on('applied', (event) => {
      tellPending()
      tell(event)
    }),
    live.hold(),
  ]
  remember()
  return () => {
    lastSeq = Number.POSITIVE_INFINITY
    for (const stop of undo) stop()
  }
}

/** The types of a step's events, as `run.step(slug).on` takes them. */
export const stepEventTypes: readonly StepEventType[] = [...statuses, 'progress', 'retrying', 'admitted']

/** The types of all events of a run, as `run.on` takes them. */
export const eventTypes: readonly RunEventType[] = [
  ...[...statuses.slice(0, 4), 'retried', 'waiting', 'begun'].map((type) => `run:${type}` as RunEventType),
  ...stepEventTypes.map((type) => `step:${type}` as const),
]

/** What pages do with an uncaught error. Node and Deno would end the process, so there it is only written down. */
export function reportUncaught(error: unknown): void {
  if ('document' in globalThis) reportError(error)
  // biome-ignore lint/suspicious/noConsole: an error that nobody handles has to be seen somewhere
  else console.error(error)
}
