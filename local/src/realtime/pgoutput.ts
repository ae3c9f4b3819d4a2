/** A column's value as Postgres prints it; null is SQL's null. The bytes are a view: copy them to keep them. */
export type Row = Map<string, Buffer | null>

export interface Insert {
  schema: string
  table: string
  row: Row
}

/** A message of the replication stream, around the output of the plugin. */
export type StreamMessage =
  | { type: 'data'; end: bigint; data: Buffer }
  | { type: 'keepalive'; end: bigint; replyRequested: boolean }

interface Relation {
  schema: string
  table: string
  columns: string[]
}

/** Microseconds from the Unix epoch to that of Postgres, 2000-01-01. */
const POSTGRES_EPOCH = 946_684_800_000_000n

/** The content of one CopyData message; undefined for kinds unknown here. */
export function decodeStreamMessage(message: Buffer): StreamMessage | undefined {
  switch (message.toString('latin1', 0, 1)) {
    case 'w':
      return { type: 'data', end: message.readBigUInt64BE(9), data: message.subarray(25) }
    case 'k':
      return { type: 'keepalive', end: message.readBigUInt64BE(1), replyRequested: message[17] === 1 }
    default:
      return undefined
  }
}

/** Says that everything up to `position` was received, so that the server may let go of it. */
export function encodeStandbyStatus(position: bigint, nowMs: number): Buffer {
  const message = Buffer.alloc(34)
  message.write('r', 'latin1')
  for (const offset of [1, 9, 17]) message.writeBigUInt64BE(position, offset)
  message.writeBigInt64BE(BigInt(nowMs) * 1000n - POSTGRES_EPOCH, 25)
  return message
}

/**
 * Reads the output of the plugin `pgoutput`, protocol version 1, values as text. Relations are told once a
 * connection, so a decoder belongs to one connection.
 */
export class PgoutputDecoder {
  readonly #relations = new Map<number, Relation>()

  /** The inserted row, or undefined for every other kind of message. */
  decode(message: Buffer): Insert | undefined {
    const reader = new Reader(message)
    const kind = reader.kind()
    if (kind === 'R') this.#relation(reader)
    return kind === 'I' ? this.#insert(reader) : undefined
  }

  #relation(reader: Reader): void {
    const oid = reader.int32()
    const schema = reader.string()
    const table = reader.string()
    reader.skip(1)
    const columns = reader.repeat(() => {
      reader.skip(1)
      const name = reader.string()
      reader.skip(8)
      return name
    })
    this.#relations.set(oid, { schema, table, columns })
  }

  #insert(reader: Reader): Insert {
    const oid = reader.int32()
    const relation = this.#relations.get(oid)
    if (!relation) throw new Error(`pgoutput: insert into the unknown relation ${oid}`)
    reader.skip(1)
    const values = reader.repeat(() => reader.value())
    const row: Row = new Map(relation.columns.map((name, index) => [name, values[index] ?? null]))
    return { schema: relation.schema, table: relation.table, row }
  }
}

class Reader {
  readonly #message: Buffer
  #offset = 0

  constructor(message: Buffer) {
    this.#message = message
  }

  /** Moves past `bytes`; returns where they begin. */
  skip(bytes: number): number {
    const start = this.#offset
    this.#offset += bytes
    if (bytes < 0 || this.#offset > this.#message.length) throw new RangeError('pgoutput: message cut off')
    return start
  }

  kind(): string {
    const at = this.skip(1)
    return this.#message.toString('latin1', at, at + 1)
  }

  int16(): number {
    return this.#message.readInt16BE(this.skip(2))
  }

  int32(): number {
    return this.#message.readInt32BE(this.skip(4))
  }

  /** Text that a zero byte ends. */
  string(): string {
    const end = this.#message.indexOf(0, this.#offset)
    if (end < 0) throw new RangeError('pgoutput: unterminated string')
    return this.#message.toString('utf8', this.skip(end + 1 - this.#offset), end)
  }

  /** A count, then as many items. */
  repeat<T>(item: () => T): T[] {
    return Array.from({ length: this.int16() }, item)
  }

  value(): Buffer | null {
    if (this.kind() !== 't') return null
    const length = this.int32()
    const start = this.skip(length)
    return this.#message.subarray(start, start + length)
  }
}
