import type { Live } from './live.ts'
import type { RunEvent } from './types.ts'

/**
 * Calls back with each event that is wanted, once and in order: first those that made the run what it is now, then all
 * that follow. Never before `listen` has returned, and never after its undo has been called.
 */
export function listen(
  live: Live,
  wants: (event: RunEvent) => boolean,
  callback: (event: RunEvent) => void,
): () => void {
  let listening = true
  let standing: RunEvent[] = []
  const tell = (event: RunEvent) => {
    if (listening && wants(event)) callSafely(callback, event)
  }
  const tellStanding = () => standing.splice(0).forEach(tell)
  const remember = () => {
    standing = live.standing
    queueMicrotask(tellStanding)
  }
  const undo = [
    live.events.on('loaded', remember),
    live.events.on('applied', (event) => {
      tellStanding()
      tell(event)
    }),
    live.hold(),
  ]
  remember()
  return () => {
    listening = false
    for (const stop of undo) stop()
  }
}

/** A listener that throws is its owner's affair: it is reported as any uncaught error, and stops nobody else. */
function callSafely(callback: (event: RunEvent) => void, event: RunEvent): void {
  try {
    callback(event)
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}
