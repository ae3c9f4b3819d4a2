import { randomUUID } from 'node:crypto'
import type { SupabaseClient } from '@supabase/supabase-js'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import WebSocket from 'ws'
import { PgflowClient } from './client.ts'
import type { Run } from './run.ts'
import { Line, outputs, Recorder, type Review, Rig, ready } from './testing/rig.ts'
import { checkInterval } from './timing.ts'
import type { RunEvent } from './types.ts'

// PGFLOW_MANY_FAULTS=yes lets each fault happen by itself and for as long as on the platform, to 1, 100 and 500 runs that
// one client follows, and prints how late events came: nine minutes. Without it, all of them happen to 100 runs.
const isLong = process.env.PGFLOW_MANY_FAULTS !== undefined

let rig: Rig

beforeAll(async () => {
  rig = await Rig.start({ realtime: { realistic: isLong } })
})
afterEach(async () => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
  // Else it would wait until it reconnects by itself.
  await rig.stack.realtime.stopReplication()
  await rig.stack.realtime.startReplication()
})
afterAll(() => rig.stop())

/** What the network does to messages. */
type Delivery = 'once' | 'twice' | 'backwards'

/** A socket that delivers broadcasts, which are binary, in another way. */
function socketThat(delivers: () => Delivery) {
  return class extends WebSocket {
    #held: unknown[][] = []

    constructor(address: string) {
      super(address)
      this.on('error', () => undefined)
    }

    override emit(event: string | symbol, ...args: unknown[]): boolean {
      if (event !== 'message' || args[1] !== true || delivers() === 'once') return super.emit(event, ...args)
      if (delivers() === 'twice') return super.emit(event, ...args) && super.emit(event, ...args)
      if (this.#held.push(args) === 1) setTimeout(() => this.#release(), 200)
      return true
    }

    #release(): void {
      const held = this.#held.reverse()
      this.#held = []
      for (const args of held) super.emit('message', ...args)
    }
  }
}

/** Runs that one client follows: each is listened to, iterated and waited for. */
class Crowd {
  readonly line = new Line()
  delivery: Delivery = 'once'
  /** Seconds for which the user's tokens are valid. */
  lifetime = 3600
  runs: Run<typeof Review>[] = []
  readonly client: PgflowClient<{ review: typeof Review }>
  /** The longest time from an event to its listener, in milliseconds. */
  latest = 0
  readonly #supabase: SupabaseClient
  readonly #recorders: Recorder<RunEvent<typeof Review>>[] = []
  #done: Promise<unknown>[] = []
  #iterated: Promise<number>[] = []

  private constructor() {
    const sub = randomUUID()
    this.#supabase = rig.client({
      accessToken: () => rig.stack.signToken({ sub, exp: Math.floor(Date.now() / 1000) + this.lifetime }),
      global: { fetch: this.line.fetch },
      realtime: { transport: socketThat(() => this.delivery) as never },
    })
    this.client = new PgflowClient(this.#supabase)
  }

  static async follow(count: number): Promise<Crowd> {
    const crowd = new Crowd()
    const channelReady = ready(crowd.#supabase)
    crowd.runs = await crowd.client.startFlows(
      'review',
      Array.from({ length: count }, () => ({ text: 'some text' })),
    )
    for (const run of crowd.runs) crowd.#listen(run)
    await channelReady
    await crowd.last(2)
    crowd.latest = 0
    return crowd
  }

  #listen(run: Run<typeof Review>): void {
    const recorder = new Recorder<RunEvent<typeof Review>>()
    run.on('*', (event) => {
      this.latest = Math.max(this.latest, Date.now() - Date.parse(event.at))
      recorder.take(event)
    })
    this.#recorders.push(recorder)
    this.#done.push(run.waitForCompletion())
    this.#iterated.push(lengthOf(run.events()))
  }

  /** Completes a step of all runs, in five statements. */
  async complete(step: number): Promise<void> {
    const [step_slug, output] = outputs[step]!
    const size = Math.ceil(this.runs.length / 5)
    for (let first = 0; first < this.runs.length; first += size) {
      const results = this.runs.slice(first, first + size).map(({ runId }) => ({
        ...{ run_id: runId, step_slug, task_index: 0, attempt: null, output },
      }))
      await rig.sql`select from pgflow.settle_tasks(${rig.sql.json(results)})`
    }
  }

  /** Changes the progress of a step of some run, five times a second. */
  async progress(step_slug: string, ms: number): Promise<void> {
    for (const end = Date.now() + ms; Date.now() < end; await pause(200)) {
      const { runId } = this.runs[Math.floor(Math.random() * this.runs.length)]!
      await rig.sql`
        update pgflow.step_states set progress = to_jsonb(random()) where run_id = ${runId} and step_slug = ${step_slug}`
    }
  }

  /** Resolves when each listener has got an event with this number. */
  async last(seq: number): Promise<void> {
    await Promise.all(this.#recorders.map((recorder) => recorder.last(seq)))
  }

  /** How many events listeners have got. */
  get heard(): number {
    return this.#recorders.reduce((sum, { events }) => sum + events.length, 0)
  }

  async leave(): Promise<void> {
    const waits = Promise.allSettled([...this.#done, ...this.#iterated])
    await Promise.all(this.runs.map((run) => run.close()))
    await waits
  }

  /** All waits are settled, each listener has got what the log has, and everything was put away. */
  async finish(): Promise<void> {
    expect(await Promise.all(this.#done)).toEqual(this.runs.map(() => ({ report: true })))
    const rows = await rig.sql<{ events: RunEvent[] }[]>`
      select (select jsonb_agg(e.event order by e.seq) from pgflow.run_event_records e where e.run_id = r.run_id) as events
      from unnest(${this.runs.map(({ runId }) => runId)}::uuid[]) with ordinality r (run_id, place) order by r.place`
    expect(this.#recorders.map(({ events }) => events)).toEqual(rows.map(({ events }) => events))
    expect(await Promise.all(this.#iterated)).toEqual(rows.map(({ events }) => events.length))
    await Promise.all(this.runs.map((run) => run.close()))
    expect(this.#supabase.getChannels()).toEqual([])
  }
}

async function lengthOf(items: AsyncIterable<unknown>): Promise<number> {
  let length = 0
  for await (const _ of items) length++
  return length
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

async function killWalsender(): Promise<void> {
  const killed = await rig.admin`
    select pg_terminate_backend(pid, 5000) from pg_stat_activity where backend_type = 'walsender'`
  expect(killed.length).toBe(1)
}

/** A page that can be hidden: the client looks for one when its first run is followed. */
function stubPage() {
  const listeners = new Set<() => void>()
  const page = {
    visibilityState: 'visible',
    addEventListener: (_: string, listener: () => void) => listeners.add(listener),
    removeEventListener: (_: string, listener: () => void) => listeners.delete(listener),
    show(visibilityState: string) {
      page.visibilityState = visibilityState
      for (const listener of listeners) listener()
    },
  }
  vi.stubGlobal('document', page)
  return page
}

/** What happens while runs go on, and what ends it. */
interface Fault {
  name: string
  begin(crowd: Crowd): unknown
  end?(crowd: Crowd): unknown
  /** Milliseconds. @default 3000 */
  lasts?: number
  requestsFail?: boolean
}

const offline = () => Promise.reject(new TypeError('fetch failed'))

const faults: Fault[] = [
  { name: 'nothing', begin: () => undefined, lasts: 0 },
  { name: 'some messages are lost', begin: () => rig.stack.realtime.dropNext(3) },
  {
    name: 'messages come twice',
    begin: (crowd) => {
      crowd.delivery = 'twice'
    },
  },
  {
    name: 'messages come backwards',
    begin: (crowd) => {
      crowd.delivery = 'backwards'
    },
  },
  ...[undefined, 1000, 1001, 1012].map((code) => ({
    name: `sockets are closed (${code ?? 'cut'})`,
    begin: () => rig.stack.realtime.closeSockets(code),
  })),
  { name: 'channels crash', begin: () => rig.stack.realtime.crashChannels() },
  {
    name: 'Realtime is down',
    begin: () => rig.stack.realtime.goDown(1012),
    end: () => rig.stack.realtime.goUp(),
    lasts: 10_000,
  },
  {
    name: 'packets vanish',
    begin: () => rig.stack.realtime.cutNetwork(),
    end: () => rig.stack.realtime.restoreNetwork(),
    lasts: 10_000,
  },
  { name: 'the walsender is killed', begin: killWalsender, lasts: 15_000 },
  {
    name: 'the database is restarted (Realtime v2.122)',
    begin: () => rig.stack.postgres.restart(),
    lasts: 15_000,
  },
  {
    name: 'the database is restarted (Realtime since v2.123.5)',
    async begin() {
      rig.stack.realtime.settings.restartRecoveryMs = 4000
      await rig.stack.postgres.restart()
    },
    end() {
      rig.stack.realtime.settings.restartRecoveryMs = Number.POSITIVE_INFINITY
    },
    lasts: 10_000,
  },
  {
    name: 'joins are refused twice',
    begin() {
      rig.stack.realtime.refuseJoins('MissingPartition: no partition for today', 2)
      rig.stack.realtime.closeSockets(1012)
    },
    lasts: 15_000,
  },
  {
    name: 'joins are forbidden',
    begin() {
      rig.stack.realtime.refuseJoins('Unauthorized: You do not have permissions', 2)
      rig.stack.realtime.closeSockets(1012)
    },
    lasts: 15_000,
  },
  {
    name: 'the rate limit silences the project',
    begin() {
      rig.stack.realtime.settings.maxEventsPerSecond = 0
    },
    end() {
      rig.stack.realtime.settings.maxEventsPerSecond = 100
    },
    lasts: 10_000,
  },
  {
    name: 'requests fail',
    begin: (crowd) => {
      crowd.line.broken = offline
    },
    end: (crowd) => {
      crowd.line.broken = undefined
    },
    requestsFail: true,
  },
  {
    name: 'sockets are cut and requests fail',
    begin: (crowd) => {
      crowd.line.broken = offline
      rig.stack.realtime.closeSockets()
    },
    end: (crowd) => {
      crowd.line.broken = undefined
    },
    requestsFail: true,
  },
  {
    name: 'the token expires',
    begin: (crowd) => {
      crowd.lifetime = 2
      rig.stack.realtime.closeSockets()
    },
    end: (crowd) => {
      crowd.lifetime = 3600
    },
    lasts: 6000,
  },
]

describe.runIf(isLong)('every event comes once and in order', () => {
  const lateness: Record<string, Record<string, string>> = {}

  const note = (name: string, crowd: Crowd) => {
    lateness[name] = { ...lateness[name], [crowd.runs.length]: `${(crowd.latest / 1000).toFixed(2)} s` }
  }

  // biome-ignore lint/suspicious/noConsole: this is what it is for
  afterAll(() => console.table(lateness))

  const cases = faults.flatMap((fault) => [1, 100, 500].map((count) => ({ ...fault, count })))

  it.each(cases)('when $name, to $count runs', { timeout: 120_000 }, async ({ name, count, ...fault }) => {
    const crowd = await Crowd.follow(count)
    await crowd.complete(0)
    await fault.begin(crowd)
    await crowd.complete(1)
    await crowd.progress('right', fault.lasts ?? 3000)
    await crowd.complete(2)
    await fault.end?.(crowd)
    await crowd.complete(3)
    await crowd.finish()
    note(name, crowd)
    // A check, and what a busy machine takes; a second one where it is the request that fails.
    expect(crowd.latest).toBeLessThan(
      checkInterval + (fault.lasts ?? 0) * Number(fault.requestsFail ?? 0) + 2000,
    )
  })

  it.each([1, 100, 500])(
    'when a page is hidden meanwhile, with %i runs',
    { timeout: 120_000 },
    async (count) => {
      const page = stubPage()
      const crowd = await Crowd.follow(count)
      await crowd.complete(0)
      page.show('hidden')
      rig.stack.realtime.dropNext(5)
      await crowd.complete(1)
      rig.stack.realtime.closeSockets()
      await crowd.complete(2)
      page.show('visible')
      await crowd.complete(3)
      await crowd.finish()
      note('a page is hidden', crowd)
    },
  )
})

describe('a client that follows 100 runs', () => {
  it('gets at its next check what it was not told since the walsender was killed', async () => {
    const crowd = await Crowd.follow(100)
    const { lives } = crowd.client as PgflowClient
    await killWalsender()
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    await lives.sync.read(crowd.runs.map((run) => lives.at(run.snapshot)))
    await crowd.complete(0)
    await vi.advanceTimersByTimeAsync(checkInterval - 1)
    expect(crowd.heard).toBe(200)
    await vi.advanceTimersByTimeAsync(1)
    await crowd.last(5)
    expect(crowd.heard).toBe(500)
    vi.useRealTimers()
    await crowd.leave()
  })

  it('tells of each event once and in order, and settles all waits, whatever happens meanwhile', async () => {
    const { realtime, postgres } = rig.stack
    const crowd = await Crowd.follow(100)
    crowd.delivery = 'twice'
    realtime.dropNext(2)
    await crowd.complete(0)
    crowd.delivery = 'backwards'
    realtime.refuseJoins('MissingPartition: no partition for today', 1)
    realtime.closeSockets(1012)
    await crowd.complete(1)
    await postgres.restart()
    await crowd.complete(2)
    crowd.line.broken = offline
    await realtime.goDown()
    await crowd.complete(3)
    realtime.goUp()
    crowd.line.broken = undefined
    await crowd.finish()
  })
})
