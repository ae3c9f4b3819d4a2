import process from 'node:process'
import type { Worker } from './start.ts'

/**
 * Stops the worker when the process gets SIGTERM or SIGINT; a second signal ends it at once.
 *
 * @returns what undoes it
 *
 * @example
 * stopOnSignals(await startWorker({ connection, flows }))
 */
export function stopOnSignals(worker: Worker): () => void {
  let signals = 0
  const onSignal = () => {
    void worker.stop(signals++ === 0 ? {} : { gracePeriod: 0 }).then(undo)
  }
  const undo = () => {
    process.off('SIGTERM', onSignal)
    process.off('SIGINT', onSignal)
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  return undo
}
