import { EventEmitter, once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocketServer } from 'ws'
import type { ApiKeys } from '../tokens.ts'
import type { Backend } from './channel.ts'
import { readHandshake, refuse, UpgradeError } from './handshake.ts'
import { Hub } from './hub.ts'
import type { RealtimeOptions } from './index.ts'
import { maintainPartitions } from './partitions.ts'
import { RateLimit } from './rate-limit.ts'
import { Replication } from './replication.ts'
import { Session } from './session.ts'
import { type RealtimeSettings, settingsFrom } from './settings.ts'
import { Socket } from './socket.ts'
import { Wire } from './wire.ts'

const MAX_FRAME_BYTES = 5_000_000
const CLOSE_TIMEOUT_MS = 1_000
const HOUR_MS = 3_600_000
/** The server falls asleep after so many looks that found no channel. */
const LOOKS = 11

/** The sockets, and what their channels share. */
export class Server implements Backend {
  readonly settings: RealtimeSettings
  readonly jwtSecret: string
  readonly session: Session
  readonly hub: Hub
  readonly replication: Replication
  /** Reasons with which the next joins are refused. */
  readonly refusals: string[] = []
  readonly #keys: ApiKeys
  readonly #sockets = new Map<Wire, Socket>()
  readonly #joins = new RateLimit()
  readonly #stopping = new AbortController()
  readonly #network = new EventEmitter().setMaxListeners(0)
  /** Set by the first join. */
  #awake: Promise<void> | undefined
  #timers: NodeJS.Timeout[] = []
  #idleLooks = 0
  #isDown = false
  #isCut = false
  readonly #upgrades = new WebSocketServer({
    WebSocket: Wire,
    noServer: true,
    clientTracking: false,
    autoPong: false,
    perMessageDeflate: false,
    maxPayload: MAX_FRAME_BYTES,
  })

  constructor({ database, jwtSecret, keys, ...settings }: RealtimeOptions) {
    this.settings = settingsFrom(settings)
    this.jwtSecret = jwtSecret
    this.#keys = keys
    this.session = new Session({ ...database, application_name: 'realtime_connect' })
    this.hub = new Hub(this.settings)
    this.replication = new Replication(database, this.session, this.settings, (insert) =>
      this.hub.publish(insert),
    )
  }

  async connect(): Promise<void> {
    if (this.#isDown) return
    this.#awake ??= this.#wake()
    await this.#awake
    if (!this.#isDown) this.replication.ensure()
  }

  admitsJoin(): boolean {
    return this.#joins.admits(1, this.settings.maxJoinsPerSecond)
  }

  nextRefusal(): string | undefined {
    return this.refusals.shift()
  }

  async accept(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const { signal } = this.#stopping
    try {
      while (this.#isCut) await once(this.#network, 'restored', { signal })
      const handshake = await readHandshake(request, this.jwtSecret, this.#keys)
      signal.throwIfAborted()
      if (this.#isDown) throw new UpgradeError(503)
      if (this.#sockets.size >= this.settings.maxConnections) {
        throw new UpgradeError(429, 'Too many connected users')
      }
      this.#upgrades.handleUpgrade(request, socket, head, (ws) => {
        ws.isCut = this.#isCut
        this.#sockets.set(ws, new Socket(ws, handshake, this))
        ws.on('close', () => this.#sockets.delete(ws))
      })
    } catch (error) {
      if (!(error instanceof UpgradeError)) throw error
      if (error.message) await this.#pause(this.settings.upgradeErrorDelayMs)
      refuse(socket, error)
    }
  }

  closeSockets(code?: number): void {
    for (const ws of this.#sockets.keys()) code === undefined ? ws.terminate() : ws.close(code)
  }

  crashChannels(): void {
    for (const socket of this.#sockets.values()) socket.crashChannels()
  }

  async goDown(code?: number): Promise<void> {
    this.#isDown = true
    this.closeSockets(code)
    await this.#fallAsleep()
  }

  goUp(): void {
    this.#isDown = false
  }

  cutNetwork(): void {
    this.#isCut = true
    for (const ws of this.#sockets.keys()) ws.isCut = true
  }

  restoreNetwork(): void {
    this.#isCut = false
    for (const ws of this.#sockets.keys()) ws.isCut = false
    this.#network.emit('restored')
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    this.restoreNetwork()
    this.#clearTimers()
    await Promise.all([...this.#sockets.keys()].map((ws) => closeSocket(ws, 1012)))
    await Promise.all([this.replication.stop(), this.session.close()])
  }

  /** What the first join begins. */
  async #wake(): Promise<void> {
    const { settings } = this
    if (settings.coldStartDelayMs > 0) await this.#pause(settings.coldStartDelayMs)
    if (this.#isDown || this.#stopping.signal.aborted) return
    this.#idleLooks = 0
    this.#timers = [
      setInterval(() => this.#maintain(), HOUR_MS),
      setInterval(() => this.hub.isEmpty || this.replication.ensure(), settings.reconnectTickMs),
    ]
    if (settings.sleepAfterMs < Number.POSITIVE_INFINITY) {
      this.#timers.push(setInterval(() => this.#look(), settings.sleepAfterMs / LOOKS))
    }
    // After the check of the join that woke the server, which uses the same connection, if it comes later at all.
    if (settings.partitionDelayMs === 0) this.#maintain()
    else this.#timers.push(setTimeout(() => this.#maintain(), settings.partitionDelayMs))
  }

  #look(): void {
    const isJoined = !this.hub.isEmpty || [...this.#sockets.keys()].some((ws) => ws.isHolding)
    this.#idleLooks = isJoined ? 0 : this.#idleLooks + 1
    if (this.#idleLooks >= LOOKS) void this.#fallAsleep()
  }

  /** The next join wakes the server again. */
  async #fallAsleep(): Promise<void> {
    this.#clearTimers()
    this.#awake = undefined
    await this.replication.sleep()
  }

  #clearTimers(): void {
    for (const timer of this.#timers.splice(0)) clearInterval(timer)
  }

  #maintain(): void {
    if (!this.settings.maintainPartitions) return
    this.session
      .run(maintainPartitions)
      .catch((error) => this.settings.log(`UnableToMaintainPartitions: ${error}`))
  }

  #pause(ms: number): Promise<void> {
    return sleep(ms, undefined, { signal: this.#stopping.signal })
  }
}

function closeSocket(ws: Wire, code: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => ws.terminate(), CLOSE_TIMEOUT_MS)
    ws.on('close', () => {
      clearTimeout(timer)
      resolve()
    })
    ws.close(code)
  })
}
