import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { DatabaseAddress } from '../postgres.ts'
import type { ApiKeys } from '../tokens.ts'
import { Server } from './server.ts'
import type { RealtimeSettings, RealtimeStartSettings } from './settings.ts'

export type { RealtimeSettings, RealtimeStartSettings } from './settings.ts'

export interface RealtimeOptions extends RealtimeStartSettings {
  /** A superuser's: the server inserts probe rows, becomes any role, and replicates. */
  database: DatabaseAddress | { readonly connectionString: string }
  jwtSecret: string
  keys: ApiKeys
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
  /** Ends every channel as a crash of the server's part of it does: clients join again. */
  crashChannels(): void
  /**
   * The server is down: its sockets are closed, with a code or, as {@link closeSockets} does, without one, and
   * upgrades are refused (503) until {@link goUp}. The next join is then the first one of a server that has just started.
   */
  goDown(code?: number): Promise<void>
  goUp(): void
  /**
   * Packets vanish until {@link restoreNetwork}: sockets stay open, what is sent in either direction is lost, and new
   * sockets wait. Requests to other parts of the stack pass.
   */
  cutNetwork(): void
  restoreNetwork(): void
}

/**
 * Starts the server; it connects to the database when the first client joins.
 *
 * @example httpServer.on('upgrade', realtime.upgrade)
 */
export function startRealtime(options: RealtimeOptions): Realtime {
  const server = new Server(options)
  return {
    settings: server.settings,
    upgrade(request, socket, head) {
      socket.on('error', () => {})
      server.accept(request, socket, head).catch(() => socket.destroy())
    },
    stop: () => server.stop(),
    stopReplication: () => server.replication.stop(),
    async startReplication() {
      await server.replication.start()
      await server.replication.whenStreaming()
    },
    dropNext(count) {
      server.hub.drop = count
    },
    refuseJoins(reason, times) {
      server.refusals.push(...Array<string>(times).fill(reason))
    },
    closeSockets: (code) => server.closeSockets(code),
    crashChannels: () => server.crashChannels(),
    goDown: (code) => server.goDown(code),
    goUp: () => server.goUp(),
    cutNetwork: () => server.cutNetwork(),
    restoreNetwork: () => server.restoreNetwork(),
  }
}
