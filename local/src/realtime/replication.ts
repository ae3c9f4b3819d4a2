import { randomBytes } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { decodeStreamMessage, encodeStandbyStatus, type Insert, PgoutputDecoder } from './pgoutput.ts'
import { disconnect, type Session } from './session.ts'
import type { RealtimeSettings } from './settings.ts'

const PUBLICATION = 'supabase_realtime_messages_publication'
const SLOT_PREFIX = 'supabase_realtime_messages_replication_slot_'
const STATUS_INTERVAL_MS = 10_000

interface ReplicationConfig extends pg.ClientConfig {
  replication: 'database'
}

/** The part of pg's connection that its types leave out. */
interface CopyConnection extends EventEmitter {
  sendCopyFromChunk(chunk: Buffer): void
}

/**
 * Reads what is inserted into `realtime.messages` from the WAL, through a temporary slot: what is committed
 * while no slot streams is never seen.
 */
export class Replication {
  readonly #database: pg.ClientConfig
  readonly #session: Session
  readonly #settings: RealtimeSettings
  readonly #onInsert: (insert: Insert) => void
  readonly #events = new EventEmitter().setMaxListeners(0)
  #streaming = false
  /** Somebody joined since the last stream ended. */
  #wanted = false
  #running: Promise<void> | undefined
  #abort = new AbortController()

  constructor(
    database: pg.ClientConfig,
    session: Session,
    settings: RealtimeSettings,
    onInsert: (insert: Insert) => void,
  ) {
    this.#database = database
    this.#session = session
    this.#settings = settings
    this.#onInsert = onInsert
  }

  /** Begins to open the stream, unless it is open, being opened, recovering, or stopped. */
  ensure(): void {
    this.#wanted = true
    if (this.#abort.signal.aborted || this.#running) return
    this.#running = this.#run(this.#abort.signal)
  }

  /** Undoes {@link stop}, and {@link ensure}. */
  async start(): Promise<void> {
    if (this.#abort.signal.aborted) await this.#running
    if (this.#abort.signal.aborted) this.#abort = new AbortController()
    this.ensure()
  }

  /** Closes the stream and its slot; {@link ensure} does nothing until {@link start}. */
  async stop(): Promise<void> {
    this.#abort.abort()
    await this.#running
  }

  /** Closes the stream and its slot until the next {@link ensure}. */
  async sleep(): Promise<void> {
    const ended = this.#abort
    if (ended.signal.aborted) return
    ended.abort()
    this.#wanted = false
    await this.#running
    this.#abort = new AbortController()
    if (this.#wanted) this.ensure()
  }

  /** Resolves as soon as the stream is open. */
  async whenStreaming(signal?: AbortSignal): Promise<void> {
    if (!this.#streaming) await once(this.#events, 'streaming', signal ? { signal } : {})
  }

  /** Stream after stream. Unless it recovers from a restart of the database, that ends it until somebody joins. */
  async #run(signal: AbortSignal): Promise<void> {
    await pause(this.#settings.replicationDelayMs, signal)
    let server: string | undefined
    while (!signal.aborted) {
      server = (await this.#stream(signal)) ?? server
      this.#wanted = false
      const { reconnectDelayMs, restartRecoveryMs } = this.#settings
      if (await this.#isStillRunning(server)) await pause(reconnectDelayMs, signal)
      else if (restartRecoveryMs < Number.POSITIVE_INFINITY) await pause(restartRecoveryMs, signal)
      else if (!this.#wanted) break
    }
    this.#running = undefined
  }

  /** One stream from its beginning to its end; returns the identity of the server once it is known. */
  async #stream(signal: AbortSignal): Promise<string | undefined> {
    const config: ReplicationConfig = {
      ...this.#database,
      replication: 'database',
      application_name: 'realtime_replication_connection',
    }
    const client = new pg.Client(config)
    const cut = () => disconnect(client)
    let server: string | undefined
    signal.addEventListener('abort', cut)
    try {
      client.on('error', () => {})
      await client.connect()
      server = await serverIdentity(client)
      await createPublication(client)
      await this.#receive(client)
    } catch (error) {
      if (!signal.aborted) this.#settings.log(`ReplicationConnectionDown: ${error}`)
    } finally {
      this.#streaming = false
      signal.removeEventListener('abort', cut)
      cut()
    }
    return server
  }

  async #receive(client: pg.Client): Promise<void> {
    // pg's own connection object: its types know a part of it only
    const connection = client.connection as unknown as CopyConnection
    const decoder = new PgoutputDecoder()
    let position = 0n
    const report = () => connection.sendCopyFromChunk(encodeStandbyStatus(position, Date.now()))
    const receive = (chunk: Buffer) => {
      const message = decodeStreamMessage(chunk)
      if (!message) return
      if (message.end > position) position = message.end
      if (message.type === 'keepalive') {
        if (message.replyRequested) report()
        return
      }
      const insert = decoder.decode(message.data)
      if (insert) this.#onInsert(insert)
    }
    connection.on('copyData', ({ chunk }: { chunk: Buffer }) => {
      try {
        receive(chunk)
      } catch (error) {
        client.connection.stream.destroy(error instanceof Error ? error : undefined)
      }
    })
    connection.once('replicationStart', () => {
      this.#streaming = true
      this.#settings.log('Replication connection established')
      this.#events.emit('streaming')
    })
    const timer = setInterval(report, STATUS_INTERVAL_MS)
    try {
      const slot = SLOT_PREFIX + randomBytes(4).toString('hex')
      await client.query(`CREATE_REPLICATION_SLOT ${slot} TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT`)
      await client.query(
        `START_REPLICATION SLOT ${slot} LOGICAL 0/0 (proto_version '1', publication_names '${PUBLICATION}')`,
      )
    } finally {
      clearInterval(timer)
    }
  }

  /** Whether only the stream was lost, and not the database that it came from. */
  async #isStillRunning(server: string | undefined): Promise<boolean> {
    try {
      const now = await this.#session.run(serverIdentity)
      return server === undefined || server === now
    } catch {
      return false
    }
  }
}

/** The time when the server was started, as text. */
async function serverIdentity(client: pg.Client): Promise<string> {
  const { rows } = await client.query(
    `select extract(epoch from pg_postmaster_start_time())::text as started`,
  )
  return rows[0].started
}

async function createPublication(client: pg.Client): Promise<void> {
  const { rowCount } = await client.query(`select from pg_publication where pubname = '${PUBLICATION}'`)
  if (rowCount === 0) await client.query(`create publication ${PUBLICATION} for table realtime.messages`)
}

/** Ends early, and without an error, when aborted; never ends for `Infinity`. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted || ms === 0) return
  const ended = ms === Number.POSITIVE_INFINITY ? once(signal, 'abort') : sleep(ms, undefined, { signal })
  await ended.catch(() => {})
}
