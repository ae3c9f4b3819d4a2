import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { AnyFlow, InputOf } from '../flow/index.ts'
import type { Duration } from '../shared/duration.ts'
import { getRun, listRuns, pageSize, startFlow, startFlows } from './api.ts'
import type { RequestOptions } from './connection.ts'
import { InvalidInputError } from './errors.ts'
import type { AnyFlows, FlowName, FlowOf, RunOf, RunRowOf, SlugOf } from './flows.ts'
import { checkJson } from './json.ts'
import { reportUncaught } from './listen.ts'
import { type Lives, livesOf } from './lives.ts'
import { checkOptions, secondsFrom } from './options.ts'
import { LiveRun } from './run.ts'
import type { SupabaseLike } from './supabase.ts'
import type { RunRow, RunSnapshot, RunStatus } from './types.ts'

export interface ClientOptions {
  /**
   * After which a request that has not been answered rejects with `TimeoutError`: seconds, or text such as `'5s'`. All clients
   * of one supabase-js client share it; the last one that is given counts. @default '15s'
   */
  readonly requestTimeout?: Duration
  /**
   * Is given what a listener throws, or what its promise rejects with; other listeners are called all the same.
   *
   * @default pages report it as an uncaught error (`reportError`); elsewhere it is written to the console
   */
  readonly onError?: (error: unknown) => void
}

interface CommonStartOptions extends RequestOptions {
  /** JSON that is kept with the run, for instance what it belongs to. */
  readonly metadata?: unknown
  /** Before the first steps start: whole seconds, or text such as `'5m'` or `'2h'`. @default 0 */
  readonly delay?: Duration
  /** The group that the run is shared with, a team for instance; the project says in which ones a user may start runs. */
  readonly groupId?: string
  /** A Standard Schema of the input, the flow's for instance: what it refuses is not sent. */
  readonly schema?: StandardSchemaV1
}

export interface StartOptions extends CommonStartOptions {
  /** A second start of the flow by the same owner with the same key and input gives the run that exists. */
  readonly idempotencyKey?: string
}

export interface StartManyOptions extends CommonStartOptions {
  /** A key for each input, or `null` where it needs none. */
  readonly idempotencyKeys?: readonly (string | null)[]
}

export interface ListOptions<Name> extends RequestOptions {
  /** Runs of this flow. */
  readonly flowSlug?: SlugOf<Name>
  readonly status?: RunStatus
  /** Runs whose metadata contain this: `{ document: 7 }` finds `{ document: 7, tags: [] }`. */
  readonly metadata?: unknown
  /** Runs of this user, where they may be seen. @default the signed-in user's; with a secret key, everybody's */
  readonly ownerId?: string
  /** Runs of this group, where they may be seen. */
  readonly groupId?: string
  /** Where the page before ended: its `cursor`. */
  readonly cursor?: string | null
  /** How many runs there are on a page, at most 1,000. @default 50 */
  readonly limit?: number
}

export interface RunPage<Row = RunRow> {
  /** The newest first. */
  readonly runs: Row[]
  /** Where the next page begins; `null` on the last one. */
  readonly cursor: string | null
}

/**
 * Starts flows and follows their runs, with the user's own supabase-js client: its user, its key, its socket.
 *
 * Flows are known by their types alone. Name them all once, by their slugs, or one at each call.
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
    if (requestTimeout !== undefined) {
      this.lives.connection.requestTimeout = secondsFrom('requestTimeout', requestTimeout)
    }
  }

  /**
   * Starts a flow: one request, which does not wait for Realtime.
   *
   * @throws InvalidInputError if an argument or option cannot be used, or the input is not JSON or not what `schema` says
   *   (nothing is sent then), or not what the flow takes
   * @throws NotFoundError if there is no such flow
   * @throws ForbiddenError if the caller may not start it, or not in this group
   * @throws ConflictError if the key was used with another input
   * @throws TimeoutError if the server does not answer in time; the flow may have been started all the same
   */
  async startFlow<Name extends FlowName<Flows>>(
    flowSlug: SlugOf<Name>,
    input: InputOf<FlowOf<Flows, Name>>,
    options: StartOptions = {},
  ): Promise<RunOf<Flows, Name>> {
    await checkOptions(options, 'idempotencyKey metadata delay groupId schema signal')
    await checkSchema(options, [input])
    const args = {
      flow_slug: flowSlug,
      input: await checkJson(input, 'input'),
      idempotency_key: options.idempotencyKey,
      ...(await commonArguments(options)),
    }
    return this.#runAt(await startFlow(this.lives.connection, args, options), options.signal)
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
    await checkOptions(options, 'idempotencyKeys metadata delay groupId schema signal')
    await checkSchema(options, inputs)
    const args = {
      flow_slug: flowSlug,
      inputs: await checkJson(inputs, 'inputs'),
      idempotency_keys: options.idempotencyKeys,
      ...(await commonArguments(options)),
    }
    const snapshots = await startFlows(this.lives.connection, args, options)
    return Promise.all(snapshots.map((snapshot) => this.#runAt<Name>(snapshot, options.signal)))
  }

  /**
   * Finds a run, whether it is over or not.
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
    await checkOptions(options, 'flowSlug status metadata ownerId groupId cursor limit signal')
    const { flowSlug, status, metadata, ownerId, groupId, cursor, limit = 50 } = options
    const quantity = Math.min(limit, pageSize)
    const args = {
      flow_slug: flowSlug,
      status,
      metadata: metadata && (await checkJson(metadata, 'metadata')),
      owner_id: ownerId,
      group_id: groupId,
      before: cursor ?? undefined,
      quantity,
    }
    const runs = await listRuns(this.lives.connection, args, options)
    const last = runs.length < quantity ? undefined : runs.at(-1)
    // The caller has said of which flow the runs are.
    return { runs: runs as unknown as RunRowOf<Flows, Name>[], cursor: last?.run_id ?? null }
  }

  /**
   * Looks at the token of the current user, and forgets what a former user has read. Only needed where supabase-js gets its
   * tokens from third-party auth (its option `accessToken`): call it when your auth provider says that the user has changed.
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

/** Loaded where there is a schema. */
async function checkSchema({ schema }: CommonStartOptions, inputs: readonly unknown[]): Promise<void> {
  const issues = schema && (await (await import('./schema.ts')).issuesOf(schema, inputs))
  if (issues) throw new InvalidInputError('PT400', `The input is not what its schema says: ${issues}`)
}

async function commonArguments({ metadata, delay, groupId }: CommonStartOptions) {
  return {
    metadata: metadata && (await checkJson(metadata, 'metadata')),
    delay: delay === undefined ? undefined : secondsFrom('delay', delay),
    group_id: groupId,
  }
}
