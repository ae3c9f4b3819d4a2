import { setTimeout } from 'node:timers/promises'
import { createServer } from 'vite'
import { startPageWorker, startStack } from './backend.ts'
import { pageConfig } from './vite.ts'

const ended = new Promise<void>((resolve) => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve())
})

console.log('starting Postgres, REST and Realtime, a worker, and Vite')
const stack = await startStack()
// The tasks of a map end one after another, so that its progress can be watched.
const worker = await startPageWorker(stack, ({ taskIndex, signal }) =>
  setTimeout(1_500 + (taskIndex % 8) * 400, undefined, { signal }),
)
const server = await createServer(pageConfig(stack))
await server.listen()
server.printUrls()
console.log('  Ctrl+C stops everything')

await ended
await server.close()
await worker.stop()
await stack.stop()
