import { getEventListeners } from 'node:events'
import { createInterface } from 'node:readline'
import { createClient } from '@supabase/supabase-js'
import WebSocket from 'ws'
import { PgflowClient } from '../index.ts'
import type { Quick } from './quick.ts'
import { ready } from './ready.ts'

// Starts, awaits and closes many runs, in batches: asks its parent to complete them, and says at the end what is left.
const { SUPABASE_URL, SUPABASE_KEY, SUPABASE_TOKEN, BATCHES } = process.env as Record<string, string>
const perBatch = 50

/** Timers that keep the process alive. */
const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length

const open = new Set<WebSocket>()
let opened = 0

class CountedSocket extends WebSocket {
  constructor(address: string) {
    super(address)
    opened++
    open.add(this)
    this.on('close', () => open.delete(this))
  }
}

/** Requests that are under way. */
const requests = new Set<Promise<unknown>>()

const countedFetch: typeof fetch = (input, init) => {
  const request = fetch(input, init)
  requests.add(request)
  const done = () => requests.delete(request)
  request.then(done, done)
  return request
}

const warnings: string[] = []
process.on('warning', ({ name }) => warnings.push(name))

const lines = createInterface(process.stdin)
const parent = lines[Symbol.asyncIterator]()

async function cycle(
  client: PgflowClient<{ quick: typeof Quick }>,
  signal: AbortSignal,
): Promise<WeakRef<object>[]> {
  const runs = await client.startFlows('quick', Array(perBatch).fill(1))
  const channelReady = ready(supabase)
  const done = runs.map((run) => run.waitForCompletion({ signal, timeout: 60 }))
  for (const run of runs) run.step('only').on('*', () => undefined)
  await channelReady
  process.stdout.write(`complete ${JSON.stringify(runs.map(({ runId }) => runId))}\n`)
  await parent.next()
  await Promise.all(done)
  await Promise.all(runs.map((run) => run.close()))
  return runs.map((run) => new WeakRef(run))
}

const supabase = createClient(SUPABASE_URL!, SUPABASE_KEY!, {
  accessToken: async () => SUPABASE_TOKEN!,
  global: { fetch: countedFetch },
  realtime: { transport: CountedSocket as never },
})
const client = new PgflowClient<{ quick: typeof Quick }>(supabase)
const { signal } = new AbortController()
const runs: WeakRef<object>[] = []
for (let batch = 0; batch < Number(BATCHES); batch++) runs.push(...(await cycle(client, signal)))
// A run may end while its log is being read.
while (requests.size > 0) await Promise.allSettled(requests)
await new Promise(setImmediate)
const timersBefore = timers()
lines.close()

process.once('beforeExit', () => {
  globalThis.gc!()
  process.stdout.write(
    `left ${JSON.stringify({
      timersBefore,
      timers: timers(),
      sockets: open.size,
      channels: supabase.getChannels().length,
      listeners: getEventListeners(signal, 'abort').length,
      runs: runs.filter((run) => run.deref() !== undefined).length,
      opened,
      warnings,
    })}\n`,
  )
})
