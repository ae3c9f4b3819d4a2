/** A reference that a client chose; it is echoed as it came. */
export type Ref = string | number | null

/** Phoenix serializer: 1 sends objects, 2 sends arrays and binary broadcasts. */
export type Version = 1 | 2

export interface ClientFrame {
  joinRef: Ref
  ref: Ref
  topic: string
  event: string
  payload: unknown
}

export interface ServerFrame {
  joinRef: Ref
  ref: Ref
  topic: string
  event: string
  payload: object
}

/** A row of `realtime.messages` on its way to subscribers. */
export interface Broadcast {
  id: string
  /** Without the prefix `realtime:`. */
  topic: string
  event: string
  encoding: 'json' | 'binary'
  /** The text of the jsonb value exactly as Postgres prints it, or the bytes of `binary_payload`. */
  payload: Buffer
}

export const TOPIC_PREFIX = 'realtime:'

const USER_BROADCAST_PUSH = 3
const USER_BROADCAST = 4

/** The frame, or undefined for anything that is not one. */
export function decodeFrame(version: Version, data: Buffer, isBinary: boolean): ClientFrame | undefined {
  if (isBinary) return version === 2 ? decodePush(data) : undefined
  const parsed = parseJson(data.toString())
  if (version === 1) return isObject(parsed) ? frame(parsed.join_ref, parsed.ref, parsed) : undefined
  if (!Array.isArray(parsed) || parsed.length < 5) return undefined
  const [joinRef, ref, topic, event, payload] = parsed
  return frame(joinRef, ref, { topic, event, payload })
}

function frame(joinRef: unknown, ref: unknown, rest: Record<string, unknown>): ClientFrame | undefined {
  const { topic, event, payload } = rest
  if (!isRef(joinRef) || !isRef(ref) || typeof topic !== 'string' || typeof event !== 'string')
    return undefined
  return { joinRef: joinRef ?? null, ref: ref ?? null, topic, event, payload }
}

/** `[3, join ref, ref, topic, event, metadata lengths, encoding]`, then these five, then the payload. */
function decodePush(data: Buffer): ClientFrame | undefined {
  if (data.length < 7 || data[0] !== USER_BROADCAST_PUSH) return undefined
  let offset = 7
  const [joinRef, ref, topic, event, metadata] = [...data.subarray(1, 6)].map((length) => {
    offset += length
    return data.toString('utf8', offset - length, offset)
  })
  if (offset > data.length || topic === undefined) return undefined
  const payload = { type: 'broadcast', event, metadata, payload: data.subarray(offset) }
  return { joinRef: joinRef || null, ref: ref || null, topic, event: 'broadcast', payload }
}

/** The key order is that of the real server: tests and logs compare text. */
export function encodeFrame(version: Version, { joinRef, ref, topic, event, payload }: ServerFrame): string {
  return JSON.stringify(
    version === 1 ? { ref, event, topic, payload } : [joinRef, ref, topic, event, payload],
  )
}

/**
 * What one subscriber is sent for a broadcast; undefined when its protocol has no form for it.
 *
 * @throws {RangeError} when topic, event or metadata exceed the 255 bytes of a binary header
 */
export function encodeBroadcast(version: Version, broadcast: Broadcast): string | Buffer | undefined {
  if (version === 2) return encodeBinaryBroadcast(broadcast)
  if (broadcast.encoding === 'binary') return undefined
  const [topic, event, id] = [TOPIC_PREFIX + broadcast.topic, broadcast.event, broadcast.id].map((text) =>
    JSON.stringify(text),
  )
  const payload = `{"event":${event},"meta":{"id":${id}},"payload":${broadcast.payload},"type":"broadcast"}`
  return `{"ref":null,"event":"broadcast","topic":${topic},"payload":${payload}}`
}

/** `[4, topic, event, metadata lengths, encoding]`, then these three, then the payload. */
function encodeBinaryBroadcast({ id, topic, event, encoding, payload }: Broadcast): Buffer {
  const parts = [TOPIC_PREFIX + topic, event, JSON.stringify({ id })].map((text) => Buffer.from(text))
  const lengths = parts.map((part) => part.length)
  if (lengths.some((length) => length > 255)) {
    throw new RangeError('topic, event or metadata is longer than 255 bytes')
  }
  const header = Buffer.from([USER_BROADCAST, ...lengths, encoding === 'json' ? 1 : 0])
  return Buffer.concat([header, ...parts, payload])
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isRef(value: unknown): value is Ref | undefined {
  return value === undefined || value === null || typeof value === 'string' || typeof value === 'number'
}
