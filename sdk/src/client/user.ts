import { createNanoEvents } from 'nanoevents'
import type { SupabaseLike } from './supabase.ts'

/** Milliseconds without a token after which a user counts as signed out, where no event says so. */
const signedOutAfter = 10_000

/**
 * The user as whom a supabase-js client makes its requests. supabase-js says who signs in and out. With its `accessToken`
 * option (third-party auth) it does not, and then the token of each request tells.
 */
export class CurrentUser {
  readonly events = createNanoEvents<{ changed: () => void }>()
  /** How often the user has changed. */
  changes = 0
  readonly #supabase: SupabaseLike
  readonly #hasEvents: boolean
  /** `undefined` until it is known, `null` while nobody is signed in. */
  #id: string | null | undefined
  #hadUser = false
  #asked = 0
  #answered = 0
  #missingSince: number | undefined

  constructor(supabase: SupabaseLike) {
    this.#supabase = supabase
    this.#hasEvents = this.#listen()
  }

  /**
   * Looks at the token now.
   *
   * @returns whether there is a token of the user; of a client that never had a user, none is expected
   */
  async check(): Promise<boolean> {
    const asked = ++this.#asked
    const id = userIdOf(await this.#token())
    // A newer answer, or an event, counts more.
    if (asked > this.#answered) {
      this.#answered = asked
      if (id !== null || this.#id === undefined || this.#isSignedOut()) this.#set(id)
    }
    return id !== null || !this.#hadUser
  }

  /** Whether the server has understood the current user, and not somebody whose session is missing for the moment. */
  isCurrent(id: string | null): boolean {
    return id === (this.#id ?? null) && (id !== null || !this.#hadUser)
  }

  async #token(): Promise<string | null | undefined> {
    try {
      return await this.#supabase.realtime.accessToken?.()
    } catch {
      // The request, which needs the token too, fails with the reason.
      return null
    }
  }

  /** Whether supabase-js says when the user changes. */
  #listen(): boolean {
    try {
      this.#supabase.auth?.onAuthStateChange((event, session) => {
        const id = session?.user.id ?? null
        // Only a sign-out says that nobody is signed in: a session may be missing for a moment.
        if (id === null && event !== 'SIGNED_OUT' && this.#id !== undefined) return
        this.#answered = ++this.#asked
        this.#set(id)
      })
      return this.#supabase.auth !== undefined
    } catch {
      // With the option `accessToken`, `auth` throws whatever is asked of it.
      return false
    }
  }

  #isSignedOut(): boolean {
    if (this.#hasEvents) return false
    this.#missingSince ??= Date.now()
    return Date.now() - this.#missingSince >= signedOutAfter
  }

  #set(id: string | null): void {
    const before = this.#id
    this.#id = id
    this.#hadUser ||= id !== null
    if (id !== null) this.#missingSince = undefined
    if (before === undefined || before === id) return
    this.changes++
    this.events.emit('changed')
  }
}

/** The user of a JSON Web Token; `null` if it is none, or names none, as the keys of a project. */
function userIdOf(token: string | null | undefined): string | null {
  try {
    const claims = token!.split('.')[1]!.replaceAll('-', '+').replaceAll('_', '/')
    return (JSON.parse(atob(claims)) as { sub?: string }).sub ?? null
  } catch {
    return null
  }
}
