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
  /** How long the first join after a start waits for the connection to the database. Supabase: 200. @default 0 */
  coldStartDelayMs: number
  /**
   * How long after the first join the daily partitions of `realtime.messages` are created. With 0, before that join is
   * checked; else a private join that finds none for today is refused with `MissingPartition`. Supabase: about 300. @default 0
   */
  partitionDelayMs: number
  /** How long after the first join the replication slot is created; `Infinity` is for ever. Supabase: 500. @default 0 */
  replicationDelayMs: number
  /** After how long without a channel the next join is a first one again; read at the first join. Supabase: 660,000. @default Infinity */
  sleepAfterMs: number
  /** How long a lost replication connection is left alone. @default 11_000 */
  reconnectDelayMs: number
  /**
   * How long the replication is lost after a restart of the database. `Infinity`: until somebody joins, or the tick of
   * `reconnectTickMs`, as with Realtime v2.122. Since v2.123.5: about 4,000. @default Infinity
   */
  restartRecoveryMs: number
  /** How often a database that was restarted is looked for while nobody joins; read at the first join. @default 300_000 */
  reconnectTickMs: number
  /** How long a channel that asked for it waits for the replication. @default 60_000 */
  readyTimeoutMs: number
  /** How long a socket may be silent. @default 60_000 */
  idleTimeoutMs: number
  /** Channels of one socket. @default 100 */
  maxChannels: number
  /** Sockets at a time; further upgrades are refused (429). Supabase: 200 and more. @default Infinity */
  maxConnections: number
  /**
   * Joins a second, on average over a minute; the socket of a join that exceeds it is closed (1001).
   * Supabase: 100 and more. @default Infinity
   */
  maxJoinsPerSecond: number
  /** Bytes of a message's payload; larger ones are lost silently. Supabase: 256,500 and more. @default 3_000_500 */
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

/** What the server is started with. */
export interface RealtimeStartSettings extends Partial<RealtimeSettings> {
  /** Waits and limits are those of Supabase's Free plan, except those that are set beside it. @default false */
  realistic?: boolean
}

const DEFAULTS: RealtimeSettings = {
  joinDelayMs: 0,
  joinErrorDelayMs: 0,
  upgradeErrorDelayMs: 0,
  coldStartDelayMs: 0,
  partitionDelayMs: 0,
  replicationDelayMs: 0,
  sleepAfterMs: Number.POSITIVE_INFINITY,
  reconnectDelayMs: 11_000,
  restartRecoveryMs: Number.POSITIVE_INFINITY,
  reconnectTickMs: 300_000,
  readyTimeoutMs: 60_000,
  idleTimeoutMs: 60_000,
  maxChannels: 100,
  maxConnections: Number.POSITIVE_INFINITY,
  maxJoinsPerSecond: Number.POSITIVE_INFINITY,
  maxPayloadBytes: 3_000_500,
  maxEventsPerSecond: Number.POSITIVE_INFINITY,
  maintainPartitions: true,
  log: () => {},
}

/** Where the platform differs from the defaults. */
const REALISTIC: Partial<RealtimeSettings> = {
  joinErrorDelayMs: 5_000,
  upgradeErrorDelayMs: 2_000,
  coldStartDelayMs: 200,
  partitionDelayMs: 300,
  replicationDelayMs: 500,
  sleepAfterMs: 660_000,
  maxConnections: 200,
  maxJoinsPerSecond: 100,
  maxPayloadBytes: 256_500,
  maxEventsPerSecond: 100,
}

export function settingsFrom({ realistic = false, ...settings }: RealtimeStartSettings): RealtimeSettings {
  return { ...DEFAULTS, ...(realistic ? REALISTIC : {}), ...settings }
}
