import { startWorker, stopOnSignals } from '@pgflow/sdk/worker'
import { Watched } from './flow.ts'

// A worker with 100 slots, until it is told to stop.
stopOnSignals(
  await startWorker({ connection: process.env.DATABASE_URL!, flows: [Watched], concurrency: 100 }),
)
