import { constants } from 'node:os'
import process from 'node:process'
import type { Duration } from '../shared/duration.ts'
import { secondsFrom } from './options.ts'
import type { Worker } from './start.ts'
import { after } from './time.ts'

export interface SignalOptions {
  /**
   * Called when the worker has stopped and nothing uses your resources any more: closes them. The process ends when the
   * promise settles.
   */
  readonly onStopped?: () => unknown
  /** How long `onStopped` may take. @default '5s' */
  readonly closeTimeout?: Duration
}

type Signal = 'SIGTERM' | 'SIGINT'

/**
 * Stops the worker when the process gets SIGTERM or SIGINT, and then ends the process as the signal would: whatever still
 * runs in it, such as open connections, timers, and handlers that ignore their signal, does not keep it alive. A second
 * signal ends it at once, and the leases of what still runs do the rest.
 *
 * @returns what undoes it
 *
 * @example
 * const worker = await startWorker({ connection, flows, resources: { pool } })
 * stopOnSignals(worker, { onStopped: () => pool.end() })
 */
export function stopOnSignals(worker: Worker, options: SignalOptions = {}): () => void {
  const closeTimeout = secondsFrom('closeTimeout', options.closeTimeout ?? '5s')
  let isStopping = false

  async function onSignal(signal: Signal): Promise<void> {
    if (isStopping) endProcess(signal)
    isStopping = true
    await worker.stop()
    await closed(options.onStopped, closeTimeout)
    endProcess(signal)
  }

  function undo(): void {
    process.off('SIGTERM', onSignal)
    process.off('SIGINT', onSignal)
  }

  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  return undo
}

/** @returns when it has settled or its time is over; it cannot stop the process from ending */
function closed(close: SignalOptions['onStopped'], seconds: number): Promise<void> {
  return new Promise((resolve) => {
    after(seconds, resolve)
    Promise.resolve()
      .then(close)
      .catch((error) => process.emitWarning(error instanceof Error ? error : String(error)))
      .then(() => resolve())
  })
}

/** As the signal does where nobody listens to it, so that the platform sees it. */
function endProcess(signal: Signal): never {
  process.removeAllListeners(signal)
  process.kill(process.pid, signal)
  // The first process of a container is not ended by a signal that it does not listen to.
  process.exit(128 + constants.signals[signal])
}
