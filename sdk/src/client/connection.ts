import { onAbort, orAbort } from '../shared/abort.ts'
import { PgflowError, TimeoutError } from '../shared/errors.ts'
import type { Api } from './api.ts'
import { codeOf, errorFrom } from './errors.ts'
import type { RpcResponse, SupabaseLike } from './supabase.ts'
import { callAfter } from './timing.ts'
import { CurrentUser } from './user.ts'

export interface RequestOptions {
  /** Aborts the request, which rejects with the signal's reason. The server may have done it nevertheless. */
  readonly signal?: AbortSignal | undefined
}

/** How requests reach the server: through the user's supabase-js client, as its current user, each with a deadline. */
export class Connection {
  readonly supabase: SupabaseLike
  readonly user: CurrentUser
  /** Seconds; an answer that takes longer is given up. */
  requestTimeout = 15

  constructor(supabase: SupabaseLike) {
    this.supabase = supabase
    this.user = new CurrentUser(supabase)
  }

  /**
   * Calls an exposed function.
   *
   * @throws TimeoutError after the deadline and the signal's reason, even if the request cannot be aborted; PgflowError
   *   (`user_changed`) if another user has signed in meanwhile; the error of the server
   */
  async call<Name extends keyof Api>(
    name: Name,
    args: Parameters<Api[Name]>[0],
    { signal }: RequestOptions = {},
  ): Promise<ReturnType<Api[Name]>> {
    signal?.throwIfAborted()
    const request = new AbortController()
    const undo = [
      callAfter(this.requestTimeout * 1000, () => request.abort(lateAfter(this.requestTimeout, name))),
    ]
    if (signal !== undefined) undo.push(onAbort(signal, () => request.abort(signal.reason)))
    try {
      // The migrations say what a function answers.
      return (await orAbort(this.#send(name, args, request, undo), request.signal)) as ReturnType<Api[Name]>
    } finally {
      for (const stop of undo) stop()
    }
  }

  async #send(name: string, args: object, request: AbortController, undo: (() => void)[]): Promise<unknown> {
    const hasToken = await this.user.check()
    request.signal.throwIfAborted()
    undo.push(this.user.events.on('changed', () => request.abort(userChanged())))
    const { data, error, status } = await this.#rpc(name, args, request.signal)
    // Where no event says so, this notices that the user has changed before the answer came.
    const stillHasToken = await this.user.check()
    if (error === null) return data
    const code = codeOf(error, status)
    const hint = isSetup.test(code) ? await this.#adviceOn(code, request.signal) : undefined
    // Without the token of the user, the answer was not for them: it may be another one later.
    throw errorFrom(error, { status: hasToken && stillHasToken ? status : 0, hint })
  }

  #rpc(name: string, args: object, signal: AbortSignal): PromiseLike<RpcResponse> {
    // The migrations create this schema and its functions; generated types need not know them.
    return this.supabase
      .schema('pgflow_public' as never)
      .rpc(name as never, args as never)
      .abortSignal(signal)
  }

  async #adviceOn(code: string, signal: AbortSignal): Promise<string> {
    const { adviceOn } = await import('./explain.ts')
    return adviceOn(code, () => this.#rpc('schema_version', {}, signal))
  }
}

/** Codes of a project that is not set up for this package. */
const isSetup = /^(unauthorized|PGRST(106|202)|42883)$/

function lateAfter(seconds: number, name: string): TimeoutError {
  const hint = name.startsWith('start_')
    ? 'It may have started: with an idempotencyKey you can repeat it.'
    : 'Raise requestTimeout.'
  return new TimeoutError(`The server did not answer within ${seconds} s`, { hint })
}

function userChanged(): PgflowError {
  return new PgflowError('user_changed', 'The user changed before the server answered')
}
