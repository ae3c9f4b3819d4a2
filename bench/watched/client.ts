import { setTimeout as sleep } from 'node:timers/promises'
import { PgflowClient } from '@pgflow/sdk'
import { createClient } from '@supabase/supabase-js'
import WebSocket from 'ws'
import { ready } from '../../sdk/src/client/testing/ready.ts'
import type { Watched } from './flow.ts'

// One user's client, as a page or a server has it: starts runs, listens to all of them, and tells its parent when each
// event has come.
const { SUPABASE_URL, SUPABASE_KEY, SUPABASE_TOKEN, RUNS } = process.env as Record<string, string>

/** When the listener of a run was called with an event: milliseconds of the system's clock, in fractions. */
export type Arrival = [runId: string, seq: number, at: number]

/** What the client has sent and got so far. */
export interface Traffic {
  requests: number
  joins: number
  frames: number
  channels: number
}

export type Question = 'open' | 'traffic' | 'arrivals' | 'close'

const traffic = { requests: 0, joins: 0, frames: 0 }

class CountedSocket extends WebSocket {
  constructor(address: string) {
    super(address)
    this.on('message', () => traffic.frames++)
  }

  override send(data: never): void {
    if (String(data).includes('"phx_join"')) traffic.joins++
    super.send(data)
  }
}

let lastAnswer = 0

const countedFetch: typeof fetch = async (input, init) => {
  traffic.requests++
  const response = await fetch(input, init)
  lastAnswer = performance.now()
  return response
}

const supabase = createClient(SUPABASE_URL!, SUPABASE_KEY!, {
  accessToken: async () => SUPABASE_TOKEN!,
  global: { fetch: countedFetch },
  realtime: { transport: CountedSocket as never },
})
const client = new PgflowClient<{ watched: typeof Watched }>(supabase)
const runs: Awaited<ReturnType<typeof client.startFlows<'watched'>>> = []
let arrivals: Arrival[] = []

/** What `performance.now()` is behind the system's clock, of which JavaScript is told whole milliseconds. */
function clockOffset(): number {
  const end = performance.now() + 20
  let offset = Number.NEGATIVE_INFINITY
  while (performance.now() < end) offset = Math.max(offset, Date.now() - performance.now())
  return offset
}
const offset = clockOffset()

function heap(): number {
  globalThis.gc!()
  return process.memoryUsage().heapUsed
}

async function open(): Promise<{ bytesPerRun: number }> {
  const channelReady = ready(supabase)
  const before = heap()
  runs.push(...(await client.startFlows('watched', Array<number>(Number(RUNS)).fill(1))))
  const loaded = runs.map(
    (run) =>
      new Promise<void>((resolve) => {
        run.on('*', ({ seq }) => {
          arrivals.push([run.runId, seq, performance.now() + offset])
          if (seq === 2) resolve()
        })
      }),
  )
  await Promise.all(loaded)
  await channelReady
  // All runs are read once more, now that they are broadcast.
  while (performance.now() - lastAnswer < 500) await sleep(50)
  arrivals = []
  return { bytesPerRun: (heap() - before) / runs.length }
}

const answers: Record<Question, () => unknown> = {
  open,
  traffic: (): Traffic => ({ ...traffic, channels: supabase.getChannels().length }),
  arrivals() {
    const taken = arrivals
    arrivals = []
    return taken
  },
  async close() {
    await Promise.all(runs.map((run) => run.close()))
    process.disconnect()
  },
}

process.on('message', async (question: Question) => {
  const answer = await answers[question]()
  if (process.connected) process.send!(answer ?? null)
})

// Its parent has failed, or needs no more of it.
process.on('disconnect', () => process.exit())
