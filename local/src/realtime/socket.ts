import { setTimeout as sleep } from 'node:timers/promises'
import type { RawData } from 'ws'
import { type Backend, Channel, type Connection, closeFrame } from './channel.ts'
import {
  type ClientFrame,
  decodeFrame,
  encodeFrame,
  type ServerFrame,
  TOPIC_PREFIX,
  type Version,
} from './frames.ts'
import type { Handshake } from './handshake.ts'
import { JoinError, readJoin, TooManyJoins } from './join.ts'
import type { Wire } from './wire.ts'

/** One client's socket: its frames are handled one after the other, and while it joins, nothing else is sent. */
export class Socket implements Connection {
  readonly version: Version
  readonly headers: Record<string, string>
  readonly #token: string
  readonly #ws: Wire
  readonly #backend: Backend
  readonly #channels = new Map<string, Channel>()
  readonly #closing = new AbortController()
  readonly #idle: NodeJS.Timeout
  #queue = Promise.resolve()

  constructor(ws: Wire, { version, token, headers }: Handshake, backend: Backend) {
    this.version = version
    this.headers = headers
    this.#token = token
    this.#ws = ws
    this.#backend = backend
    this.#idle = setTimeout(() => ws.close(1000), backend.settings.idleTimeoutMs)
    ws.on('message', (data, isBinary) => ws.isCut || this.#receive(data, isBinary))
    ws.on('ping', (data) => ws.isCut || this.#enqueue(() => ws.pong(data)))
    ws.on('error', (error) => backend.settings.log(`socket: ${error.message}`))
    ws.on('close', () => this.#closed())
  }

  send(data: string | Buffer): void {
    this.#ws.send(data)
  }

  sendFrame(frame: ServerFrame): void {
    this.send(encodeFrame(this.version, frame))
  }

  crashChannels(): void {
    for (const channel of this.#channels.values()) {
      const { topic, joinRef } = channel
      this.sendFrame({ joinRef, ref: joinRef, topic, event: 'phx_error', payload: {} })
    }
    this.#closeChannels()
  }

  forget(channel: Channel): void {
    if (this.#channels.get(channel.topic) === channel) this.#channels.delete(channel.topic)
  }

  #closed(): void {
    clearTimeout(this.#idle)
    this.#closing.abort()
    this.#closeChannels()
  }

  #closeChannels(): void {
    for (const channel of this.#channels.values()) channel.close()
    this.#channels.clear()
  }

  #receive(data: RawData, isBinary: boolean): void {
    // ws hands over single buffers unless its binaryType is changed
    const frame = decodeFrame(this.version, data as Buffer, isBinary)
    if (frame) this.#enqueue(() => this.#handle(frame))
    else this.#enqueue(() => this.#backend.settings.log('socket: a frame that cannot be read'))
  }

  /** Work is done in the order of its frames. */
  #enqueue(work: () => Promise<void> | void): void {
    this.#idle.refresh()
    this.#queue = this.#queue.then(work).catch((error) => this.#backend.settings.log(`socket: ${error}`))
  }

  async #handle(frame: ClientFrame): Promise<void> {
    if (this.#closing.signal.aborted) return
    const { joinRef, topic, event } = frame
    if (topic === 'phoenix' && event === 'heartbeat') return this.#reply({ ...frame, joinRef: null })
    if (event === 'phx_join' && topic.startsWith(TOPIC_PREFIX)) return this.#join(frame)
    const channel = this.#channels.get(topic)
    if (event === 'phx_leave' && (!channel || channel.joinRef === joinRef)) return this.#leave(frame, channel)
    if (!channel) return this.#reply({ ...frame, joinRef: null }, 'unmatched topic')
    const isCurrent = joinRef === channel.joinRef || (joinRef === null && event !== 'phx_leave')
    if (isCurrent) await channel.receive({ ...frame, joinRef: channel.joinRef })
  }

  /** A second join of a topic replaces the first, whether it succeeds or not. */
  async #join(frame: ClientFrame): Promise<void> {
    const previous = this.#channels.get(frame.topic)
    if (previous) {
      previous.close()
      this.forget(previous)
    }
    this.#ws.hold()
    const { settings } = this.#backend
    if (settings.joinDelayMs > 0) await this.#sleep(settings.joinDelayMs)
    const outcome = await this.#authorize(frame).catch((error: unknown) => error)
    if (!(outcome instanceof Channel)) await this.#sleep(delayOf(outcome) ?? settings.joinErrorDelayMs)
    if (this.#closing.signal.aborted) return
    this.#ws.release(() => {
      if (outcome instanceof Channel) this.#open(outcome, frame)
      else this.#refuse(outcome, frame)
      if (previous) this.sendFrame(closeFrame(previous))
    })
    if (outcome instanceof TooManyJoins) this.#ws.close(1001)
  }

  #open(channel: Channel, frame: ClientFrame): void {
    this.#channels.set(channel.topic, channel)
    channel.open()
    this.#reply(frame, undefined, { postgres_changes: [] })
    channel.confirm()
  }

  #refuse(error: unknown, frame: ClientFrame): void {
    if (!(error instanceof JoinError)) this.#backend.settings.log(`join: ${error}`)
    this.#reply(frame, error instanceof JoinError ? error.message : 'Unknown Error on Channel')
  }

  #sleep(ms: number): Promise<void> {
    return sleep(ms, undefined, { signal: this.#closing.signal })
  }

  async #authorize(frame: ClientFrame): Promise<Channel> {
    const { settings } = this.#backend
    const reason = this.#backend.nextRefusal()
    if (reason !== undefined) throw new JoinError(reason)
    const config = readJoin(frame.topic, frame.payload)
    if (!this.#backend.admitsJoin()) throw new TooManyJoins()
    if (this.#channels.size >= settings.maxChannels) {
      throw new JoinError('ChannelRateLimitReached: Too many channels')
    }
    const channel = new Channel(frame, config, this, this.#backend)
    await channel.authorize(config.token ?? this.#token)
    return channel
  }

  #leave(frame: ClientFrame, channel: Channel | undefined): void {
    channel?.close()
    this.#channels.delete(frame.topic)
    this.#reply(frame)
    if (channel) this.sendFrame(closeFrame(channel))
  }

  #reply({ joinRef, ref, topic }: ClientFrame, reason?: string, response: object = {}): void {
    const payload =
      reason === undefined ? { status: 'ok', response } : { status: 'error', response: { reason } }
    this.sendFrame({ joinRef, ref, topic, event: 'phx_reply', payload })
  }
}

function delayOf(error: unknown): number | undefined {
  return error instanceof JoinError ? error.delayMs : undefined
}
