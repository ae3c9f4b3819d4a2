import { PgflowError, TimeoutError } from '../shared/errors.ts'
import { errorFrom } from './errors.ts'
import type { SupabaseLike } from './supabase.ts'
import { CurrentUser } from './user.ts'

/** Milliseconds; an answer that takes longer is given up. */
const deadline = 15_000

/** How requests reach the server: through the user's supabase-js client, as its current user, each with a deadline. */
export class Connection {
  readonly supabase: SupabaseLike
  readonly user: CurrentUser

  constructor(supabase: SupabaseLike) {
    this.supabase = supabase
    this.user = new CurrentUser(supabase)
  }

  /**
   * Calls an exposed function.
   *
   * @throws TimeoutError after the deadline, even if the request cannot be aborted; PgflowError (`user_changed`) if another
   *   user has signed in meanwhile; the error of the server
   */
  async call(name: string, args: object): Promise<unknown> {
    const request = new AbortController()
    let timer: ReturnType<typeof setTimeout> | undefined
    try {
      return await new Promise((resolve, reject) => {
        request.signal.addEventListener('abort', () => reject(request.signal.reason))
        timer = setTimeout(() => request.abort(new TimeoutError(`No answer within ${deadline} ms`)), deadline)
        this.#send(name, args, request).then(resolve, reject)
      })
    } finally {
      clearTimeout(timer)
    }
  }

  async #send(name: string, args: object, request: AbortController): Promise<unknown> {
    const hasToken = await this.user.check()
    const undo = this.user.events.on('changed', () => request.abort(userChanged()))
    try {
      const rpc = this.supabase.schema('pgflow_public').rpc(name, args)
      const { data, error, status } = await rpc.abortSignal(request.signal)
      // Without events, this is what notices that the user has changed before the answer came.
      const stillHasToken = await this.user.check()
      if (error === null) return data
      throw errorFrom(error, status, hasToken && stillHasToken)
    } finally {
      undo()
    }
  }
}

function userChanged(): PgflowError {
  return new PgflowError('user_changed', 'The user changed before the server answered', {
    hint: 'Ask again as the new user. What the former user asked for may have happened.',
  })
}
