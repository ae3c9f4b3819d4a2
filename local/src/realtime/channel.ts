import { TokenError } from '../tokens.ts'
import { type ReadPermission, readPermission } from './authorization.ts'
import { type ClientFrame, isObject, type Ref, type ServerFrame, TOPIC_PREFIX } from './frames.ts'
import type { Hub, Subscriber } from './hub.ts'
import { type JoinConfig, JoinError, usableToken } from './join.ts'
import type { Replication } from './replication.ts'
import type { Session } from './session.ts'
import type { RealtimeSettings } from './settings.ts'
import { closeReason, expiredText, joinRefusal, readToken, type Token } from './token.ts'

/** What all channels share. */
export interface Backend {
  readonly jwtSecret: string
  readonly settings: RealtimeSettings
  readonly session: Session
  readonly hub: Hub
  readonly replication: Replication
  /** Called before each join: the first one wakes the server up. */
  connect(): Promise<void>
  /** Counts a join, unless there were too many. */
  admitsJoin(): boolean
  /** The reason with which the next join is to be refused, if it is. */
  nextRefusal(): string | undefined
}

/** What a channel needs of its socket. */
export interface Connection extends Subscriber {
  /** The headers of the upgrade that begin with `x-`. */
  readonly headers: Record<string, string>
  sendFrame(frame: ServerFrame): void
  /** Called when the channel closes itself. */
  forget(channel: Channel): void
}

/** The longest wait for a token's expiry: timers cannot wait for years. */
const EXPIRY_CHECK_MS = 300_000
const DATABASE_DOWN = 'Realtime was unable to connect to the project database'

/** A topic joined by one socket. */
export class Channel {
  /** With its prefix. */
  readonly topic: string
  readonly joinRef: Ref
  readonly #config: JoinConfig
  readonly #connection: Connection
  readonly #backend: Backend
  readonly #closing = new AbortController()
  #token: Token | undefined
  #expiry: NodeJS.Timeout | undefined

  constructor(frame: ClientFrame, config: JoinConfig, connection: Connection, backend: Backend) {
    this.topic = frame.topic
    this.joinRef = frame.joinRef
    this.#config = config
    this.#connection = connection
    this.#backend = backend
  }

  /**
   * Checks the token and, for a private topic, the policies.
   *
   * @throws {JoinError}
   */
  async authorize(text: string): Promise<void> {
    const token = await readToken(this.#backend.jwtSecret, text).catch((error) => {
      throw error instanceof TokenError ? new JoinError(joinRefusal(error)) : error
    })
    await this.#backend.connect()
    const permission = await this.#permission(token)
    if (permission === 'denied') throw new JoinError(`Unauthorized: ${this.#deniedText}`)
    if (permission === 'no-partition') {
      throw new JoinError('MissingPartition: Realtime was unable to find the expected messages partition')
    }
    if (permission === 'unreachable') throw new JoinError(`UnableToConnectToProject: ${DATABASE_DOWN}`)
    this.#token = token
  }

  /** Begins to receive; the reply to the join must be sent in the same turn, then {@link confirm}ed. */
  open(): void {
    const leave = this.#backend.hub.subscribe(this.#name, this.#config.private, this.#connection)
    this.#closing.signal.addEventListener('abort', leave)
  }

  /** The client knows that it has joined: it may be told more. */
  confirm(): void {
    this.#watchExpiry()
    if (this.#config.replicationReady) void this.#announceReplication()
  }

  /** Ends silently. */
  close(): void {
    clearTimeout(this.#expiry)
    this.#closing.abort()
  }

  /** Handles a frame of the client's, except a join and a leave. */
  async receive({ event, ref, payload }: ClientFrame): Promise<void> {
    if (event === 'access_token') return this.#renew(isObject(payload) ? payload.access_token : undefined)
    if (event === 'presence') this.#refuse(ref, 'Presence is not supported by the local stack')
    if (event === 'broadcast' && this.#config.ack) {
      this.#refuse(ref, 'Broadcasts from clients are not supported by the local stack')
    }
  }

  get #name(): string {
    return this.topic.slice(TOPIC_PREFIX.length)
  }

  get #deniedText(): string {
    return `You do not have permissions to read from this Channel topic: ${this.#name}`
  }

  async #permission({ claims }: Token): Promise<ReadPermission> {
    if (!this.#config.private) return 'allowed'
    const { headers } = this.#connection
    const { session, settings } = this.#backend
    return readPermission(session, this.#name, { claims, headers }, settings.log)
  }

  async #renew(value: unknown): Promise<void> {
    const text = usableToken(value)
    if (text === undefined || text === this.#token?.text) return
    try {
      const token = await readToken(this.#backend.jwtSecret, text)
      const permission = await this.#permission(token)
      if (permission !== 'allowed') {
        return this.#shutDown(permission === 'denied' ? this.#deniedText : DATABASE_DOWN)
      }
      this.#token = token
    } catch (error) {
      if (error instanceof TokenError) return this.#shutDown(closeReason(error))
      throw error
    }
    if (!this.#closing.signal.aborted) this.#watchExpiry()
  }

  async #announceReplication(): Promise<void> {
    const timeout = AbortSignal.timeout(this.#backend.settings.readyTimeoutMs)
    try {
      await this.#backend.replication.whenStreaming(AbortSignal.any([this.#closing.signal, timeout]))
      this.#system('ok', 'Replication connection established')
    } catch {
      this.#shutDown('Replication connection was not established in time')
    }
  }

  #watchExpiry(): void {
    clearTimeout(this.#expiry)
    if (!this.#token) return
    const lateMs = Date.now() - this.#token.claims.exp * 1000
    if (lateMs < 0) this.#expiry = setTimeout(() => this.#watchExpiry(), Math.min(-lateMs, EXPIRY_CHECK_MS))
    else this.#shutDown(expiredText(Math.floor(lateMs / 1000)))
  }

  /** Ends for a reason that the client is told. */
  #shutDown(reason: string): void {
    if (this.#closing.signal.aborted) return
    this.close()
    this.#connection.forget(this)
    this.#system('error', reason)
    this.#connection.sendFrame(closeFrame(this))
  }

  #system(status: 'ok' | 'error', message: string): void {
    const payload = { message, status, extension: 'system', channel: this.#name }
    const { topic, joinRef } = this
    this.#connection.sendFrame({ joinRef, ref: null, topic, event: 'system', payload })
  }

  #refuse(ref: Ref, reason: string): void {
    const { topic, joinRef } = this
    const payload = { status: 'error', response: { reason } }
    this.#connection.sendFrame({ joinRef, ref, topic, event: 'phx_reply', payload })
  }
}

/** Tells the client that a channel has ended, for whatever reason. */
export function closeFrame({ topic, joinRef }: Channel): ServerFrame {
  return { joinRef, ref: joinRef, topic, event: 'phx_close', payload: {} }
}
