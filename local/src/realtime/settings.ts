/** How the server behaves. Each is read when it matters: a test may change them while the server runs. */
export interface RealtimeSettings {
  /** How long every join waits, and with it all that its socket sends and receives, as behind slow policies. @default 0 */
  joinDelayMs: number
  /**
   * How long a refused join waits, and with it all that its socket sends and receives: broadcasts and answers to
   * heartbeats too. Supabase: 5000. @default 0
   */
  joinErrorDelayMs: number
  /** How long a refused upgrade waits. Supabase: 2000. @default 0 */
  upgradeErrorDelayMs: number
  /** How long the first join's replication slot is waited with; `Infinity` is for ever. @default 0 */
  replicationDelayMs: number
  /** How long a lost replication connection is left alone. @default 11_000 */
  reconnectDelayMs: number
  /** How often a database that was restarted is looked for while nobody joins; read at the first join. @default 300_000 */
  reconnectTickMs: number
  /** How long a channel that asked for it waits for the replication. @default 60_000 */
  readyTimeoutMs: number
  /** How long a socket may be silent. @default 60_000 */
  idleTimeoutMs: number
  /** Channels of one socket. @default 100 */
  maxChannels: number
  /** Bytes of a message's payload. @default 3_000_500 */
  maxPayloadBytes: number
  /**
   * Messages plus deliveries a second, on average over a minute; what exceeds it is lost silently.
   * Supabase: 100 and more. @default Infinity
   */
  maxEventsPerSecond: number
  /** Whether the daily partitions of `realtime.messages` are created and dropped. @default true */
  maintainPartitions: boolean
  /** @default nothing is logged */
  log: (line: string) => void
}

export const DEFAULTS: RealtimeSettings = {
  joinDelayMs: 0,
  joinErrorDelayMs: 0,
  upgradeErrorDelayMs: 0,
  replicationDelayMs: 0,
  reconnectDelayMs: 11_000,
  reconnectTickMs: 300_000,
  readyTimeoutMs: 60_000,
  idleTimeoutMs: 60_000,
  maxChannels: 100,
  maxPayloadBytes: 3_000_500,
  maxEventsPerSecond: Number.POSITIVE_INFINITY,
  maintainPartitions: true,
  log: () => {},
}
