import { randomUUID } from 'node:crypto'
import type { SupabaseClient } from '@supabase/supabase-js'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { PgflowError } from '../shared/errors.ts'
import { PgflowClient } from './client.ts'
import { ConflictError, RunCancelledError, RunFailedError } from './errors.ts'
import type { Run } from './run.ts'
import { Line, Recorder, Rig, ready } from './testing/rig.ts'
import type { RunEvent } from './types.ts'

// PGFLOW_FAULT_RUNS=200 looks longer; PGFLOW_FAULT_SEED and PGFLOW_FAULT_PATH, which a failure prints as seed and
// path, repeat it.
const { PGFLOW_FAULT_RUNS = '5', PGFLOW_FAULT_SEED, PGFLOW_FAULT_PATH } = process.env
const parameters = {
  numRuns: Number(PGFLOW_FAULT_RUNS),
  endOnFailure: true,
  ...(PGFLOW_FAULT_SEED !== undefined && { seed: Number(PGFLOW_FAULT_SEED) }),
  ...(PGFLOW_FAULT_PATH !== undefined && { path: PGFLOW_FAULT_PATH }),
}

let rig: Rig

beforeAll(async () => {
  rig = await Rig.start()
})
afterAll(() => rig.stop())

/** What happens next: work, a fault, or somebody who comes to look. */
type Action =
  | {
      do:
        | 'fail'
        | 'progress'
        | 'listen'
        | 'iterate'
        | 'catch up'
        | 'brief tokens'
        | 'cancel'
        | 'retry'
        | 'stop'
        | 'restart the database'
        | 'start'
    }
  | { do: 'complete'; bytes: number }
  | { do: 'close'; code: number | undefined }
  | { do: 'drop'; messages: number }
  | { do: 'refuse'; joins: number }
  | { do: 'offline'; requests: number }

const few = fc.integer({ min: 1, max: 2 })

const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('complete'), bytes: fc.constantFrom(1, 17_000, 60_000) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constantFrom('fail', 'progress', 'listen', 'iterate', 'catch up') }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('brief tokens', 'cancel', 'retry') }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('stop', 'start', 'restart the database') }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('close'), code: fc.constantFrom(undefined, 1000, 1001, 1012) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('drop'), messages: few }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('refuse'), joins: few }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('offline'), requests: few }) },
)

/** For each step which of those before it are its deps, and what becomes of it when its attempts are used up. */
const flow = fc.array(
  fc.record({ deps: fc.nat(63), whenExhausted: fc.constantFrom('fail', 'skip', 'skip-cascade') }),
  { minLength: 1, maxLength: 5 },
)

async function define(steps: readonly { deps: number; whenExhausted: string }[]): Promise<string> {
  const slug = `random_${randomUUID().replaceAll('-', '')}`
  await rig.sql`select pgflow.create_flow(${slug}, max_attempts => 2, base_delay => 0, start_role => 'authenticated')`
  for (const [index, { deps, whenExhausted }] of steps.entries()) {
    const slugs = steps.flatMap((_, dep) => (dep < index && deps & (1 << dep) ? [`step_${dep}`] : []))
    await rig.sql`
      select pgflow.add_step(${slug}, ${`step_${index}`}, ${slugs}::text[], when_exhausted => ${whenExhausted})
    `
  }
  return slug
}

/** One run, everything that is done to it, and all who look at it. */
class Scenario {
  readonly #line = new Line()
  readonly #first = new Recorder<RunEvent>()
  readonly #late: { after: number; recorder: Recorder<RunEvent> }[] = []
  readonly #iterated: { after: number; events: Promise<RunEvent[]> }[] = []
  readonly #supabase: SupabaseClient
  #lifetime = 3600
  #outcome: Promise<unknown> = Promise.resolve()
  #run!: Run

  private constructor() {
    const sub = randomUUID()
    const token = () => rig.stack.signToken({ sub, exp: Math.floor(Date.now() / 1000) + this.#lifetime })
    this.#supabase = rig.client({
      accessToken: token,
      global: { fetch: this.#line.fetch },
      realtime: { reconnectAfterMs: () => 100 },
    })
  }

  /** Starts a run; `joined` if nothing is to happen before its events are broadcast. */
  static async start(flowSlug: string, joined: boolean): Promise<Scenario> {
    const scenario = new Scenario()
    const channelReady = ready(scenario.#supabase)
    scenario.#run = await new PgflowClient(scenario.#supabase).startFlow(flowSlug, null)
    scenario.#run.on('*', scenario.#first.take)
    scenario.#await()
    if (joined) await channelReady
    return scenario
  }

  async take(action: Action): Promise<void> {
    const { realtime } = rig.stack
    switch (action.do) {
      case 'complete':
        await this.#settle({ output: 'x'.repeat(action.bytes) })
        return
      case 'fail':
        await this.#settle({ error: 'no' })
        return
      case 'progress':
        await rig.sql`
          update pgflow.step_states set progress = to_jsonb(random())
          where run_id = ${this.#run.runId} and status = 'started'
        `
        return
      case 'listen':
        return this.#listen()
      case 'iterate':
        return this.#iterate()
      case 'catch up':
        return this.#first.last((await rig.log(this.#run.runId)).length)
      case 'brief tokens':
        this.#lifetime = 1
        return
      case 'cancel':
        return this.#ask(() => this.#run.cancel('enough'))
      case 'retry':
        await this.#ask(() => this.#run.retry())
        return this.#await()
      case 'close':
        return realtime.closeSockets(action.code)
      case 'drop':
        return realtime.dropNext(action.messages)
      case 'stop':
        return realtime.stopReplication()
      case 'start':
        return realtime.startReplication()
      case 'restart the database':
        return rig.stack.postgres.restart()
      case 'refuse':
        return realtime.refuseJoins('MissingPartition: no partition', action.joins)
      case 'offline':
        return this.#goOffline(action.requests)
    }
  }

  /** Lets the run end, and compares what all have seen with the log. */
  async finish(): Promise<void> {
    this.#lifetime = 3600
    while (await this.#settle({ output: 1 }));
    const outcome = await this.#outcome
    const log = await this.#truth()
    await this.#first.last(log.length)
    expect(this.#first.events).toEqual(log)
    for (const { after, recorder } of this.#late) {
      await recorder.last(log.length)
      const standing = recorder.seqs.filter((seq) => seq <= after)
      expect(standing).toEqual([...new Set(standing)].sort((a, b) => a - b))
      expect(recorder.events).toEqual([...standing.map((seq) => log[seq - 1]), ...log.slice(after)])
    }
    for (const { after, events } of this.#iterated) {
      const seen = await events
      const next = log[after + seen.length]
      expect(seen).toEqual(log.slice(after, after + seen.length))
      // It ends with the run, which may be retried later.
      expect([undefined, 'run:retried']).toContain(next?.type)
    }
    expect(outcome).toEqual(this.#expectedOutcome())
    await this.#run.close()
    expect(this.#supabase.getChannels().length).toBe(0)
  }

  #expectedOutcome(): unknown {
    const { status, output } = this.#run
    if (status === 'completed') return output
    return expect.any(status === 'failed' ? RunFailedError : RunCancelledError)
  }

  /** Waits for the end, whatever it is; an expired token may be followed by a better one. */
  #await(): void {
    const wait = (): Promise<unknown> =>
      this.#run.waitForCompletion().catch((error: PgflowError) => (error.status === 401 ? wait() : error))
    this.#outcome = wait()
  }

  #listen(): void {
    const recorder = new Recorder<RunEvent>()
    this.#late.push({ after: this.#run.snapshot.seq, recorder })
    this.#run.on('*', recorder.take)
  }

  #iterate(): void {
    const after = Math.floor(this.#run.snapshot.seq / 2)
    const events: RunEvent[] = []
    const iterate = async (): Promise<RunEvent[]> => {
      try {
        for await (const event of this.#run.events({ after: after + events.length })) events.push(event)
        return events
      } catch (error) {
        if ((error as PgflowError).status === 401) return iterate()
        throw error
      }
    }
    this.#iterated.push({ after, events: iterate() })
  }

  #goOffline(requests: number): void {
    let left = requests
    this.#line.broken = () => {
      if (--left === 0) this.#line.broken = undefined
      return Promise.reject(new TypeError('fetch failed'))
    }
  }

  /** Asks until there is an answer; it may be that this cannot be done. */
  async #ask(request: () => Promise<void>): Promise<void> {
    try {
      await request()
    } catch (error) {
      if (error instanceof ConflictError) return
      if (!(error instanceof PgflowError)) throw error
      if (error.status === 401) this.#lifetime = 3600
      else if (error.code !== 'unreachable') throw error
      await this.#ask(request)
    }
  }

  /** Settles a task, if there is one. */
  async #settle(result: object): Promise<boolean> {
    const [task] = await rig.sql`
      select run_id, step_slug, task_index, attempt
      from pgflow.claim_tasks(array[${this.#run.flowSlug}], 1, gen_random_uuid())
    `
    if (task === undefined) return false
    await rig.sql`select from pgflow.settle_tasks(${rig.sql.json([{ ...task, ...result }] as never)})`
    return true
  }

  /** The log, with the outputs that are too large for it. */
  async #truth(): Promise<RunEvent[]> {
    const { runId } = this.#run
    const rows = await rig.sql`
      select event - 'output_omitted' || case
          when not event ? 'output_omitted' then '{}'
          else jsonb_build_object('output', case
            when event ->> 'type' = 'run:completed' then (select output from pgflow.runs where run_id = ${runId})
            else (select output from pgflow.step_states where run_id = ${runId} and step_slug = event ->> 'step_slug')
          end)
        end as event
      from pgflow.run_event_records where run_id = ${runId} order by seq
    `
    return rows.map(({ event }) => event)
  }
}

it('every event comes once and in order, whatever happens when', {
  timeout: 60_000 * parameters.numRuns,
}, async () => {
  const property = fc.asyncProperty(
    flow,
    fc.boolean(),
    fc.array(action, { minLength: 5, maxLength: 25 }),
    async (steps, joined, actions) => {
      const scenario = await Scenario.start(await define(steps), joined)
      for (const next of actions) await scenario.take(next)
      await scenario.finish()
    },
  )
  property.afterEach(async () => {
    rig.stack.realtime.dropNext(0)
    await rig.stack.realtime.startReplication()
  })
  await fc.assert(property, parameters)
})
