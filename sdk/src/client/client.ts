import type { AnyFlow, InputOf } from '../flow/index.ts'
import { toJson } from '../flow/json.ts'
import { getRun, type StartArguments, startFlow } from './api.ts'
import { InvalidInputError } from './errors.ts'
import { type Lives, livesOf } from './lives.ts'
import { Run } from './run.ts'
import type { SupabaseLike } from './supabase.ts'

export interface StartOptions {
  /** A second start of the flow by the same owner with the same key and input gives the run that exists. */
  readonly idempotencyKey?: string
  /** JSON that is kept with the run, for instance what it belongs to. */
  readonly metadata?: unknown
}

/**
 * Starts flows and follows their runs, with the user's own supabase-js client: its user, its key, its socket.
 *
 * @example
 * const client = new PgflowClient(supabase)
 * const run = await client.startFlow<typeof AnalyzeDocument>('analyze_document', { path: 'README.md' })
 * const output = await run.waitForCompletion()
 */
export class PgflowClient {
  readonly #supabase: SupabaseLike
  /** @internal */
  readonly lives: Lives

  constructor(supabase: SupabaseLike) {
    this.#supabase = supabase
    this.lives = livesOf(supabase)
  }

  /**
   * Starts a flow: one request, which does not wait for Realtime.
   *
   * @throws InvalidInputError if the input is not JSON (nothing is sent then) or not what the flow takes
   * @throws NotFoundError if there is no such flow
   * @throws ForbiddenError if the caller may not start it
   * @throws ConflictError if the key was used with another input
   */
  async startFlow<F extends AnyFlow = AnyFlow>(
    flowSlug: F['slug'],
    input: InputOf<F>,
    { idempotencyKey, metadata }: StartOptions = {},
  ): Promise<Run<F>> {
    const args: StartArguments = {
      flow_slug: flowSlug,
      input: checkJson(input, 'input'),
      ...(idempotencyKey !== undefined && { idempotency_key: idempotencyKey }),
      ...(metadata !== undefined && { metadata: checkJson(metadata, 'metadata') }),
    }
    return new Run<F>(await this.lives.adopt(await startFlow(this.#supabase, args)))
  }

  /**
   * Finds a run, whether it is over or not.
   *
   * @throws NotFoundError if there is no such run, or it is not the caller's
   */
  async getRun<F extends AnyFlow = AnyFlow>(runId: string): Promise<Run<F>> {
    return new Run<F>(await this.lives.adopt(await getRun(this.#supabase, runId)))
  }
}

function checkJson(value: unknown, name: string): unknown {
  if (value === undefined) {
    throw new InvalidInputError('PT400', `The ${name} is missing`, {
      hint: `Give the ${name} of the flow; null where it takes none.`,
    })
  }
  try {
    toJson(value)
  } catch (cause) {
    throw new InvalidInputError('PT400', `The ${name} is not JSON: ${(cause as Error).message}`, { cause })
  }
  return value
}
