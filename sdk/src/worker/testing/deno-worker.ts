import process from 'node:process'
import { Flow } from '../../flow/index.ts'
import { serveWorker } from '../index.ts'

/** What Deno has, as far as it is used here. */
declare const Deno: { serve(handle: (request: Request) => Promise<Response>): unknown }

/**
 * A served worker in Deno: `deno-worker.ts <its options, as JSON>`. The step `work` of the flow `held` says on stdout that
 * it runs; its first attempt never ends. The flow `busy` computes for 1.5 seconds. Warnings are said on stdout.
 */
const options = JSON.parse(process.argv[2]!)

const held = new Flow<null>({ slug: 'held' }).step('work', (_, { attempt }) => {
  process.stdout.write('working\n')
  return attempt === 1 ? new Promise<string>(() => {}) : `attempt ${attempt}`
})

const busy = new Flow<null>({ slug: 'busy' }).step('compute', () => {
  const end = performance.now() + 1_500
  while (performance.now() < end);
  return 'computed'
})

const say = (message: string) => process.stdout.write(`${message.replace(/[\d.]+ s/, 'n s')}\n`)
const log = { debug() {}, info() {}, warn: say, error: say }

Deno.serve(serveWorker({ log, ...options, flows: [held, busy] }))
