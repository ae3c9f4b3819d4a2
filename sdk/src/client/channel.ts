import type { WireEvent } from './store.ts'
import type { ChannelLike, ChannelOptions, SupabaseLike } from './supabase.ts'
import { backOff } from './timing.ts'

/** What a message says of one run; without events where they are too large for it. */
export interface RunMessage {
  readonly run_id: string
  readonly events: readonly WireEvent[]
}

/** What is broadcast to a topic. */
export interface Message {
  readonly runs?: readonly RunMessage[]
  /** Waits that the user may complete, and that have begun or are over. */
  readonly waits?: readonly object[]
}

export interface ChannelHandlers {
  /** Broadcast events, perhaps not all there were. */
  receive(message: Message): void
  /** From now on broadcasts come, or none come for now; what was before may have been lost. */
  changed(): void
}

/** So many times in a row a channel may be refused before it is left alone: each costs the socket five seconds. */
const refusalsAllowed = 2

/**
 * Keeps one private channel joined, for all runs of a client. supabase-js joins again by itself after an error; after a close
 * (token expired, permission checked again, server overloaded) the channel is dead, and a new one is built.
 */
export class SharedChannel {
  readonly #supabase: SupabaseLike
  readonly #handlers: ChannelHandlers
  #topic: string | undefined
  #joined = false
  #refusals = 0
  #failures = 0
  #channel: ChannelLike | undefined
  #left: Promise<void> | undefined
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(supabase: SupabaseLike, handlers: ChannelHandlers) {
    this.#supabase = supabase
    this.#handlers = handlers
  }

  get joined(): boolean {
    return this.#joined
  }

  /** Whether joining was refused, so that it is not tried any more. */
  get refused(): boolean {
    return this.#refusals >= refusalsAllowed
  }

  /** Joins the channel of a topic, and leaves that of another. */
  open(topic: string): void {
    if (topic === this.#topic || this.refused) return
    this.#topic = topic
    void this.renew()
  }

  /** Leaves at once; the promise is settled when nothing of it is left. The next time, joining is tried again. */
  async close(): Promise<void> {
    this.#refusals = 0
    await this.#close()
  }

  /** A fresh join wakes up a server that has stopped to deliver. */
  async renew(): Promise<void> {
    await this.#leave()
    await this.#subscribe()
  }

  /** The token may have been renewed while timers slept. */
  async refreshToken(): Promise<void> {
    // Without a token the join is refused, and tried again; there is nobody to tell.
    await this.#supabase.realtime.setAuth().catch(() => undefined)
  }

  async #close(): Promise<void> {
    this.#topic = undefined
    await this.#leave()
  }

  async #subscribe(): Promise<void> {
    // Without it, the first join may go out before supabase-js knows the user's token.
    await this.refreshToken()
    // An older supabase-js would give the channel that is being left.
    await this.#left
    if (this.#topic === undefined || this.#channel !== undefined) return
    const topic = this.#topic
    // Realtime understands all of these; supabase-js passes on what its own version does not know.
    const options: ChannelOptions = { config: { private: true, broadcast: { replication_ready: true } } }
    try {
      const channel = this.#supabase.channel(topic, options as never)
      this.#channel = channel
      channel
        .on('broadcast', { event: '*' }, ({ payload }) => {
          // What a former user's channel still has to say is for nobody.
          if (topic === this.#topic) this.#handlers.receive((payload as Message | undefined) ?? {})
        })
        .on('system', {}, ({ status }) => {
          if (status === 'ok') this.#handlers.changed()
        })
        .subscribe((status, error) => {
          if (channel === this.#channel) this.#take(status, error)
        })
    } catch {
      // There is no WebSocket here. Polling does it, but there may be one later (a polyfill, a network).
      void this.#leave()
      this.#subscribeLater()
    }
  }

  #take(status: string, error: Error | undefined): void {
    this.#joined = status === 'SUBSCRIBED'
    if (this.#joined) {
      this.#refusals = 0
      this.#failures = 0
    } else if (status === 'CLOSED') {
      this.#channel = undefined
      this.#subscribeLater()
      // Older versions of supabase-js put the reason in quotes, and have none for a socket that was closed.
    } else if (/^"?Unauthorized/.test(error?.message ?? '') && ++this.#refusals >= refusalsAllowed) {
      void this.#close()
    } else {
      void this.refreshToken()
      // A join sent while the socket was closing is never answered, and never repeated without a socket.
      if (status === 'TIMED_OUT') this.#supabase.realtime.connect()
    }
    this.#handlers.changed()
  }

  #subscribeLater(): void {
    clearTimeout(this.#timer)
    this.#failures++
    this.#timer = setTimeout(() => void this.#subscribe(), backOff(this.#failures))
  }

  async #leave(): Promise<void> {
    clearTimeout(this.#timer)
    this.#joined = false
    const channel = this.#channel
    if (channel !== undefined) {
      this.#channel = undefined
      // It came from this client, whose type of channels is not known here.
      this.#left = this.#supabase.removeChannel(channel as never).then(() => this.#hangUp())
    }
    await this.#left
  }

  /** In a page the socket stays: the user may soon look at another run. Elsewhere it would keep the process alive. */
  async #hangUp(): Promise<void> {
    if (!('document' in globalThis)) (await import('./socket.ts')).hangUpLater(this.#supabase)
  }
}
