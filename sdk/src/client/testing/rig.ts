import { randomUUID } from 'node:crypto'
import { type LocalSupabase, type LocalSupabaseOptions, startLocalSupabase } from '@pgflow/local'
import { createClient, type SupabaseClient, type SupabaseClientOptions } from '@supabase/supabase-js'
import postgres from 'postgres'
import WebSocket from 'ws'
import { compile, Flow } from '../../flow/index.ts'

export { ready } from './ready.ts'

/** One step, then two side by side, then one that waits for both. */
export const Review = new Flow<{ text: string }>({ slug: 'review', startRole: 'authenticated', baseDelay: 0 })
  .step('read', ({ run }) => run.text)
  .step('left', ['read'], ({ read }) => ({ words: read.length }))
  .step('right', ['read'], () => [1, 2])
  .step('report', ['left', 'right'], ({ left }) => left.words > 0)

export type Result = { output: unknown } | { error: string; permanent?: boolean }

/** Some versions of supabase-js close a socket that is being connected, and listen to its errors no more. */
class QuietSocket extends WebSocket {
  constructor(...args: ConstructorParameters<typeof WebSocket>) {
    super(...args)
    this.on('error', () => undefined)
  }
}

/** A stack with the flow `review`, users of it, and a hand that settles its tasks. */
export class Rig implements AsyncDisposable {
  readonly stack: LocalSupabase
  readonly sql: postgres.Sql
  /** As a superuser. */
  readonly admin: postgres.Sql
  readonly #clients: SupabaseClient[] = []

  private constructor(stack: LocalSupabase) {
    this.stack = stack
    this.sql = postgres(stack.dbUrl, { max: 2, onnotice: () => undefined })
    this.admin = postgres(stack.adminDbUrl, { max: 1, onnotice: () => undefined })
  }

  static async start(options: LocalSupabaseOptions = {}): Promise<Rig> {
    const rig = new Rig(
      await startLocalSupabase({ migrations: ['supabase/migrations'], fsync: false, ...options }),
    )
    await rig.sql.unsafe(compile(Review))
    return rig
  }

  /** A client of a user; a new one if none is named. */
  async user(
    id: string = randomUUID(),
    options: SupabaseClientOptions<'public'> = {},
  ): Promise<SupabaseClient> {
    const token = await this.stack.signToken({ sub: id })
    return this.client({ accessToken: async () => token, ...options })
  }

  client(options: SupabaseClientOptions<'public'> = {}, create = createClient): SupabaseClient {
    return this.clientOf(this.stack.publishableKey, options, create)
  }

  /** A client with a key of the project. */
  clientOf(
    key: string,
    options: SupabaseClientOptions<'public'> = {},
    create = createClient,
  ): SupabaseClient {
    const client = create(this.stack.url, key, {
      ...options,
      // The socket of Node 22 and later would do as well.
      realtime: { transport: QuietSocket as never, ...options.realtime },
    })
    this.#clients.push(client)
    return client
  }

  /** Settles one task of a run. */
  async settle(runId: string, stepSlug: string, result: Result): Promise<void> {
    const results = [{ run_id: runId, step_slug: stepSlug, task_index: 0, attempt: null, ...result }]
    const [settled] = await this
      .sql`select applied from pgflow.settle_tasks(${this.sql.json(results as never)})`
    if (!settled?.applied) throw new Error(`The task of ${stepSlug} is not there to be settled`)
  }

  /** Completes a run step by step, from where it is; or only the steps before `end`. */
  async complete(runId: string, from = 0, end: number = outputs.length): Promise<void> {
    for (const [slug, output] of outputs.slice(from, end)) await this.settle(runId, slug, { output })
  }

  /** What the log says of a run: the truth. */
  async log(runId: string): Promise<unknown[]> {
    const rows = await this.sql`
      select event from pgflow.run_event_records where run_id = ${runId} order by seq
    `
    return rows.map(({ event }) => event)
  }

  async stop(): Promise<void> {
    for (const client of this.#clients) await client.removeAllChannels()
    await Promise.all([this.sql.end(), this.admin.end()])
    await this.stack.stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}

/** A connection to the server that a test can break. */
export class Line {
  /** Takes the place of each request while it is set. */
  broken: ((...request: Parameters<typeof fetch>) => Promise<Response>) | undefined
  readonly requests: string[] = []

  readonly fetch: typeof fetch = (input, init) => {
    this.requests.push(new URL(String(input)).pathname.split('/').at(-1)!)
    return this.broken ? this.broken(input, init) : fetch(input, init)
  }
}

export const outputs = [
  ['read', 'some text'],
  ['left', { words: 9 }],
  ['right', [1, 2]],
  ['report', true],
] as const

/** Listens, and can be waited on. */
export class Recorder<Event extends { type: string; seq: number; step_slug: string | null }> {
  readonly events: Event[] = []
  #arrived = () => {}

  readonly take = (event: Event): void => {
    this.events.push(event)
    this.#arrived()
  }

  get types(): string[] {
    return this.events.map((event) => event.type)
  }

  get seqs(): number[] {
    return this.events.map((event) => event.seq)
  }

  /** Resolves with the first event of a type, and of a step where one is named. */
  first(type: string, stepSlug?: string): Promise<Event> {
    return this.#find(
      (event) => event.type === type && (stepSlug === undefined || event.step_slug === stepSlug),
    )
  }

  /** Resolves when the event with this number has come. */
  async last(seq: number): Promise<void> {
    await this.#find((event) => event.seq === seq)
  }

  async #find(is: (event: Event) => boolean): Promise<Event> {
    for (;;) {
      const found = this.events.find(is)
      if (found) return found
      await new Promise<void>((resolve) => {
        this.#arrived = resolve
      })
    }
  }
}
