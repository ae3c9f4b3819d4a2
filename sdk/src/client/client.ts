import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { AnyFlow, InputOf } from '../flow/index.ts'
import { type Duration, secondsOf } from '../shared/duration.ts'
import { getRun, type StartArguments, type StartManyArguments } from './api.ts'
import type { RequestOptions } from './connection.ts'
import type { AnyFlows, FlowName, FlowOf, RunOf, RunRowOf, SlugOf } from './flows.ts'
import { reportUncaught } from './listen.ts'
import type { WaitKey } from './lists.ts'
import { type Lives, livesOf } from './lives.ts'
import { argumentsFrom, checkOptions, invalid } from './options.ts'
import { LiveRun } from './run.ts'
import type { SupabaseLike } from './supabase.ts'
import type { Priority, RunRow, RunSnapshot, RunStatus, WaitRow } from './types.ts'

export interface ClientOptions {
  /**
   * The deadline of a request, after which it rejects with `TimeoutError`. All clients of one supabase-js client share it:
   * the last value counts. @default '15s'
   */
  readonly requestTimeout?: Duration
  /**
   * Gets what a listener throws, or what its promise rejects with. Other listeners are still called.
   *
   * @default pages report it as an uncaught error (`reportError`); elsewhere it is written to the console
   */
  readonly onError?: (error: unknown) => void
}

interface CommonStartOptions extends RequestOptions {
  /** JSON that is stored with the run, up to 64 KB. */
  readonly metadata?: unknown
  /** How long the first steps wait, in whole seconds: `90`, `'5m'`, `'2h'`. @default 0 */
  readonly delay?: Duration
  /** The id of the group with which the run is shared, such as a team. */
  readonly groupId?: string
  /**
   * Which tasks come first. With a user's token, the flow's own priority or a lower one. @default that of the flow
   */
  readonly priority?: Priority
  /** A Standard Schema that validates the input before it is sent, for instance the flow's. */
  readonly schema?: StandardSchemaV1
}

export interface StartOptions extends CommonStartOptions {
  /** A second start by the same user with the same key and input returns the existing run. 1 to 255 characters. */
  readonly idempotencyKey?: string
}

export interface StartManyOptions extends CommonStartOptions {
  /** A key for each input, or `null`. */
  readonly idempotencyKeys?: readonly (string | null)[]
}

export interface ListOptions<Name> extends RequestOptions {
  /** Runs of this flow. */
  readonly flowSlug?: SlugOf<Name>
  readonly status?: RunStatus
  /** Runs whose metadata contain this: `{ document: 7 }` finds `{ document: 7, tags: [] }`. */
  readonly metadata?: unknown
  /** Runs of this user, as far as the caller may see them. @default the signed-in user; with a secret key, everybody */
  readonly ownerId?: string
  /** Runs of this group, as far as the caller may see them. */
  readonly groupId?: string
  /** Whether runs that steps of other runs have started are listed, too. @default false */
  readonly children?: boolean
  /** The `cursor` of the page before. @default the first page */
  readonly cursor?: string | null
  /** The number of runs on a page, at most 1,000. @default 50 */
  readonly limit?: number
}

export interface ListWaitsOptions<Name> extends RequestOptions {
  /** Waits of this flow, in all its versions. */
  readonly flowSlug?: SlugOf<Name>
  /** The last wait of the page before. @default the first page */
  readonly afterWait?: WaitRow | undefined
  /** The number of waits on a page, at most 1,000; there may be fewer where their inputs are large. @default 50 */
  readonly limit?: number
}

export interface RunPage<Row = RunRow> {
  /** The newest first. */
  readonly runs: Row[]
  /** Pass it to get the next page; `null` on the last page. */
  readonly cursor: string | null
}

/**
 * Starts flows and follows their runs, with the user's own supabase-js client: its user, its key, its socket.
 *
 * It needs only the types of flows: of all of them once, as a map by their slugs, or of one with each call.
 *
 * @example
 * const client = new PgflowClient<{ analyze_document: typeof AnalyzeDocument }>(supabase)
 * const run = await client.startFlow('analyze_document', { path: 'README.md' })
 * const output = await run.waitForCompletion()
 *
 * @example
 * const client = new PgflowClient(supabase)
 * const run = await client.startFlow<typeof AnalyzeDocument>('analyze_document', { path: 'README.md' })
 */
export class PgflowClient<Flows extends { readonly [Slug in keyof Flows]: AnyFlow } = AnyFlows> {
  /** @internal */
  readonly lives: Lives
  readonly #onError: (error: unknown) => void

  /** @throws InvalidInputError if `requestTimeout` is no duration */
  constructor(supabase: SupabaseLike, { requestTimeout, onError = reportUncaught }: ClientOptions = {}) {
    this.#onError = onError
    this.lives = livesOf(supabase)
    if (requestTimeout === undefined) return
    const seconds = secondsOf(requestTimeout)
    if (seconds === undefined) throw invalid(`requestTimeout is ${requestTimeout}: give it '15s'`)
    this.lives.connection.requestTimeout = seconds
  }

  /**
   * Starts a flow: one request, which does not wait for Realtime. Of a flow that has one run at a time (`singleton`), the run may be
   * the one that exists already, or one that waits (`run.snapshot.waits_for`).
   *
   * @throws InvalidInputError if an argument or option cannot be used, or the input is not JSON or not what `schema` says
   *   (nothing is sent then), or not what the flow takes
   * @throws NotFoundError if there is no such flow
   * @throws ForbiddenError if the caller may not start it, or not in this group or with this priority
   * @throws ConflictError if the key was used with another input; or the flow has one run at a time, and there is another run
   * @throws TimeoutError if the server does not answer in time; the run may have been started nevertheless
   */
  async startFlow<Name extends FlowName<Flows>>(
    flowSlug: SlugOf<Name>,
    input: InputOf<FlowOf<Flows, Name>>,
    options: StartOptions = {},
  ): Promise<RunOf<Flows, Name>> {
    const args = await argumentsFrom<StartArguments>(
      { flowSlug, input, ...options },
      `input! idempotencyKey ${startNames}`,
    )
    return this.#runAt(await this.lives.connection.call('start_flow', args, options), options.signal)
  }

  /**
   * Starts a flow for each of many inputs, up to 1,000, all or none, in one request.
   *
   * @returns the runs, in the order of the inputs
   * @throws as `startFlow`
   *
   * @example
   * const runs = await client.startFlows('resize_image', [{ path: 'a.png' }, { path: 'b.png' }])
   */
  async startFlows<Name extends FlowName<Flows>>(
    flowSlug: SlugOf<Name>,
    inputs: readonly InputOf<FlowOf<Flows, Name>>[],
    options: StartManyOptions = {},
  ): Promise<RunOf<Flows, Name>[]> {
    const args = await argumentsFrom<StartManyArguments>(
      { flowSlug, inputs, ...options },
      `inputs! idempotencyKeys ${startNames}`,
    )
    const snapshots = await this.lives.connection.call('start_flows', args, options)
    return Promise.all(snapshots.map((snapshot) => this.#runAt<Name>(snapshot, options.signal)))
  }

  /**
   * Reads a run, running or ended.
   *
   * @throws InvalidInputError if the id is no UUID; nothing is sent then
   * @throws NotFoundError if there is no such run, or it is not the caller's
   */
  async getRun<Name extends FlowName<Flows> = keyof Flows & string>(
    runId: string,
    options: RequestOptions = {},
  ): Promise<RunOf<Flows, Name>> {
    await checkOptions(options, 'signal')
    return this.#runAt(await getRun(this.lives.connection, runId, options), options.signal)
  }

  /**
   * Lists runs, the newest first, without their steps.
   *
   * @throws InvalidInputError if an option cannot be used; nothing is sent then
   * @throws NotFoundError if the run at which the page before ended has been deleted
   *
   * @example
   * const failed = await client.listRuns({ flowSlug: 'analyze_document', status: 'failed' })
   * const more = failed.cursor && (await client.listRuns({ status: 'failed', cursor: failed.cursor }))
   */
  async listRuns<Name extends FlowName<Flows> = keyof Flows & string>(
    options: ListOptions<Name> = {},
  ): Promise<RunPage<RunRowOf<Flows, Name>>> {
    // The caller has said of which flow the runs are.
    return (await lists()).listRuns(this.lives, argumentsFrom, { ...options }) as unknown as RunPage<
      RunRowOf<Flows, Name>
    >
  }

  /**
   * Lists what the user may complete: waits (`.wait()`) of any run that name them, the oldest first.
   *
   * @throws InvalidInputError if an option cannot be used; nothing is sent then
   *
   * @example
   * const waits = await client.listWaits({ flowSlug: 'publish' })
   * const more = await client.listWaits({ flowSlug: 'publish', afterWait: waits.at(-1) })
   */
  async listWaits<Name extends FlowName<Flows> = keyof Flows & string>(
    options: ListWaitsOptions<Name> = {},
  ): Promise<WaitRow[]> {
    return (await lists()).listWaits(this.lives, argumentsFrom, { ...options })
  }

  /**
   * Completes a wait that was listed, also one of a run that the user may not see; as `complete` of a step.
   *
   * @example
   * await client.completeWait(wait, { approved: true })
   */
  async completeWait(wait: WaitKey, output: unknown, options: RequestOptions = {}): Promise<void> {
    await (await lists()).decideWait(this.lives, argumentsFrom, wait, { output, ...options })
  }

  /**
   * Rejects a wait that was listed; as `reject` of a step.
   *
   * @example
   * await client.rejectWait(wait, 'The figures are missing')
   */
  async rejectWait(wait: WaitKey, reason: string, options: RequestOptions = {}): Promise<void> {
    await (await lists()).decideWait(this.lives, argumentsFrom, wait, { reason, ...options })
  }

  /**
   * Checks whether the user has changed, and drops what a former user has read. Only needed if supabase-js gets its tokens
   * from third-party auth (its option `accessToken`): call it when your auth provider reports another user.
   */
  async checkUser(): Promise<void> {
    await this.lives.connection.user.check()
  }

  async #runAt<Name>(snapshot: RunSnapshot, signal: AbortSignal | undefined): Promise<RunOf<Flows, Name>> {
    // The caller has said of which flow the run is.
    return new LiveRun(await this.lives.adopt(snapshot, signal), this.#onError) as unknown as RunOf<
      Flows,
      Name
    >
  }
}

const lists = () => import('./lists.ts')

const startNames = 'flowSlug! metadata delay groupId priority schema signal'
