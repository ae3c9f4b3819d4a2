/*
 * The worker of `pgflow dev`: a process of its own, since a module that has been imported cannot be imported again. Its
 * parent tells it what to run and when to stop.
 */
import type { WorkerStartError } from '../worker/errors.ts'
import { codeOf } from '../worker/faults.ts'
import { startWorker, type Worker } from '../worker/start.ts'
import { webhooksFrom } from '../worker/webhooks/settings.ts'
import { flowsIn } from './flows.ts'

export interface Order {
  readonly connection: string
  readonly modules: readonly string[]
}

export type Report =
  | { readonly type: 'imported'; readonly file: string }
  | { readonly type: 'started'; readonly flows: readonly string[] }
  | {
      readonly type: 'failed'
      readonly message: string
      /** The flow whose shape is not the one in the database. */
      readonly changedFlow?: string | undefined
    }

let worker: Worker | undefined
let isStopping = false

process.on('message', (message: Order | 'stop') => {
  if (message === 'stop') void stop()
  else void run(message)
})
process.on('disconnect', () => void stop())
// Ctrl-C in a terminal reaches this process, too: the parent decides.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})

async function run({ connection, modules }: Order): Promise<void> {
  try {
    const flows = await flowsIn(modules, (file) => report({ type: 'imported', file }))
    const webhooks = webhooksFrom(process.env)
    const options = { connection, flows, name: 'pgflow dev', gracePeriod: '2s', webhooks }
    worker = await startWorker(options as Parameters<typeof startWorker>[0]) // their resources are not known
    if (isStopping) return await stop()
    report({ type: 'started', flows: flows.map(({ slug }) => slug) })
    await worker.stopped
  } catch (error) {
    const { message } = error as Error
    report({ type: 'failed', message, changedFlow: changedFlowIn(error as WorkerStartError) })
  }
  end()
}

function changedFlowIn(error: WorkerStartError): string | undefined {
  if (codeOf(error.cause) !== 'PT409') return undefined
  return /the shape of "([^"]+)" changed/.exec(error.message)?.[1]
}

async function stop(): Promise<void> {
  isStopping = true
  await worker?.stop()
  end()
}

function report(message: Report): void {
  if (process.connected) process.send?.(message)
}

/** After what was sent. */
function end(): void {
  if (process.connected) process.disconnect()
  setImmediate(() => process.exit())
}
