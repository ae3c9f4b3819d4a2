import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { type WebSocket, WebSocketServer } from 'ws'
import type { ApiKeys } from '../tokens.ts'
import type { Backend } from './channel.ts'
import { customHeaders, readKey, readVersion, refuse, UpgradeError } from './handshake.ts'
import { Hub } from './hub.ts'
import { maintainPartitions } from './partitions.ts'
import { Replication } from './replication.ts'
import { Session } from './session.ts'
import { DEFAULTS, type RealtimeSettings } from './settings.ts'
import { Socket } from './socket.ts'

export type { RealtimeSettings } from './settings.ts'

export interface RealtimeOptions extends Partial<RealtimeSettings> {
  /** A superuser's: the server inserts probe rows, becomes any role, and replicates. */
  database: pg.ClientConfig
  jwtSecret: string
  keys: ApiKeys
  /** Opens the replication slot at once, not at the first join. @default false, as Supabase does */
  eager?: boolean
}

/** Supabase Realtime's broadcasts from the database, over WebSockets that the caller's HTTP server hands over. */
export interface Realtime {
  /** What the server was started with; changes take effect at once. */
  readonly settings: RealtimeSettings
  /** Takes over an upgrade request to `…/websocket`. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void
  /** Closes every socket (1012) and every connection to the database. */
  stop(): Promise<void>
  /** What is committed from now on is never broadcast. Subscribers are not told. */
  stopReplication(): Promise<void>
  /** Resolves when messages flow again, or for the first time. */
  startReplication(): Promise<void>
  /** Loses the next messages that are committed. */
  dropNext(count: number): void
  /** Refuses the next joins, for instance with `Unauthorized: …`. */
  refuseJoins(reason: string, times: number): void
  /** Closes every socket with a code (1000, 1001, 1012), or cuts them without one, which clients see as 1006. */
  closeSockets(code?: number): void
}

const MAX_FRAME_BYTES = 5_000_000
const CLOSE_TIMEOUT_MS = 1_000
const HOUR_MS = 3_600_000
/** How often a database that was restarted is looked for while nobody joins. */
const RECONNECT_TICK_MS = 300_000

/**
 * Starts the server; it connects to the database when the first client joins.
 *
 * @example httpServer.on('upgrade', realtime.upgrade)
 */
export function startRealtime(options: RealtimeOptions): Realtime {
  const { database, jwtSecret, keys, eager = false, ...given } = options
  const settings: RealtimeSettings = { ...DEFAULTS, ...given }
  const session = new Session({ ...database, application_name: 'realtime_connect' })
  const hub = new Hub(settings)
  const replication = new Replication(database, session, settings, (insert) => hub.publish(insert))
  const sockets = new Set<WebSocket>()
  const server = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: MAX_FRAME_BYTES,
    clientTracking: false,
  })
  const timers: NodeJS.Timeout[] = []
  const stopping = new AbortController()
  const refusals: string[] = []

  const maintain = () => {
    if (!settings.maintainPartitions) return
    session.run(maintainPartitions).catch((error) => settings.log(`partitions: ${error}`))
  }
  const connect = () => {
    if (timers.length === 0) {
      maintain()
      timers.push(setInterval(maintain, HOUR_MS))
      timers.push(setInterval(() => hub.isEmpty || replication.ensure(), RECONNECT_TICK_MS))
    }
    replication.ensure()
  }
  const backend: Backend = {
    jwtSecret,
    settings,
    session,
    hub,
    replication,
    connect,
    nextRefusal: () => refusals.shift(),
  }

  async function accept(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const version = readVersion(request)
    if (!version) return refuse(socket, 403)
    try {
      const handshake = {
        version,
        headers: customHeaders(request),
        token: await readKey(request, jwtSecret, keys),
      }
      server.handleUpgrade(request, socket, head, (ws) => {
        sockets.add(ws)
        ws.on('close', () => sockets.delete(ws))
        new Socket(ws, handshake, backend)
      })
    } catch (error) {
      if (!(error instanceof UpgradeError)) throw error
      await sleep(settings.upgradeErrorDelayMs, undefined, { signal: stopping.signal })
      refuse(socket, error.status, error.message)
    }
  }

  if (eager) connect()

  return {
    settings,
    upgrade(request, socket, head) {
      socket.on('error', () => {})
      accept(request, socket, head).catch(() => socket.destroy())
    },
    async stop() {
      stopping.abort()
      timers.forEach(clearInterval)
      await Promise.all([...sockets].map((ws) => closeSocket(ws, 1012)))
      await Promise.all([replication.stop(), session.close()])
    },
    stopReplication: () => replication.stop(),
    startReplication() {
      replication.start()
      return replication.whenStreaming()
    },
    dropNext(count) {
      hub.drop = count
    },
    refuseJoins(reason, times) {
      refusals.push(...Array<string>(times).fill(reason))
    },
    closeSockets(code) {
      for (const ws of sockets) code === undefined ? ws.terminate() : ws.close(code)
    },
  }
}

function closeSocket(ws: WebSocket, code: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => ws.terminate(), CLOSE_TIMEOUT_MS)
    ws.on('close', () => {
      clearTimeout(timer)
      resolve()
    })
    ws.close(code)
  })
}
