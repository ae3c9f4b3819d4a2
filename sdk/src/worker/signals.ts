import { constants } from 'node:os'
import process from 'node:process'
import type { Worker } from './start.ts'

/**
 * Stops the worker when the process gets SIGTERM or SIGINT; a second signal ends the process at once, and the leases
 * of what still runs do the rest.
 *
 * @returns what undoes it
 *
 * @example
 * stopOnSignals(await startWorker({ connection, flows }))
 */
export function stopOnSignals(worker: Worker): () => void {
  let isStopping = false
  const onSignal = (signal: 'SIGTERM' | 'SIGINT') => {
    if (isStopping) process.exit(128 + constants.signals[signal])
    isStopping = true
    void worker.stop().then(undo)
  }
  const undo = () => {
    process.off('SIGTERM', onSignal)
    process.off('SIGINT', onSignal)
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  return undo
}
