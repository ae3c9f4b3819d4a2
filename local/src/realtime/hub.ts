import { type Broadcast, encodeBroadcast, type Version } from './frames.ts'
import type { Insert, Row } from './pgoutput.ts'
import { RateLimit } from './rate-limit.ts'
import type { RealtimeSettings } from './settings.ts'

export interface Subscriber {
  readonly version: Version
  send(data: string | Buffer): void
}

const MESSAGES = /^messages(_\d{4}_\d\d_\d\d)?$/

/** Takes inserted rows of `realtime.messages` to the channels of their topic. */
export class Hub {
  /** How many of the next messages are lost. */
  drop = 0

  readonly #settings: RealtimeSettings
  readonly #rate = new RateLimit()
  readonly #topics = new Map<string, Set<Subscriber>>()

  constructor(settings: RealtimeSettings) {
    this.#settings = settings
  }

  get isEmpty(): boolean {
    return this.#topics.size === 0
  }

  /** Returns the undo. A public and a private topic of the same name have nothing in common. */
  subscribe(topic: string, isPrivate: boolean, subscriber: Subscriber): () => void {
    const key = topicKey(topic, isPrivate)
    const subscribers = this.#topics.get(key) ?? new Set()
    this.#topics.set(key, subscribers.add(subscriber))
    return () => {
      subscribers.delete(subscriber)
      if (subscribers.size === 0 && this.#topics.get(key) === subscribers) this.#topics.delete(key)
    }
  }

  /** Whatever cannot be delivered is logged and lost, as on the platform. */
  publish({ schema, table, row }: Insert): void {
    if (schema !== 'realtime' || !MESSAGES.test(table)) return
    try {
      this.#deliver(
        readBroadcast(row, this.#settings.maxPayloadBytes),
        row.get('private')?.toString() === 't',
      )
    } catch (error) {
      this.#settings.log(`UnableToBroadcastChanges: ${error instanceof Error ? error.message : error}`)
    }
  }

  #deliver(broadcast: Broadcast, isPrivate: boolean): void {
    const subscribers = [...(this.#topics.get(topicKey(broadcast.topic, isPrivate)) ?? [])]
    if (this.drop > 0) {
      this.drop -= 1
      return
    }
    if (!this.#rate.admits(1 + subscribers.length, this.#settings.maxEventsPerSecond)) {
      throw new Error('too_many_requests')
    }
    const encoded = new Map<Version, string | Buffer | undefined>()
    for (const subscriber of subscribers) {
      const { version } = subscriber
      if (!encoded.has(version)) encoded.set(version, encodeBroadcast(version, broadcast))
      const data = encoded.get(version)
      if (data !== undefined) subscriber.send(data)
    }
  }
}

function topicKey(topic: string, isPrivate: boolean): string {
  return `${isPrivate ? 'private' : 'public'}:${topic}`
}

/** @throws {Error} naming what forbids the row to be delivered */
function readBroadcast(row: Row, maxPayloadBytes: number): Broadcast {
  const text = (column: string) => {
    const value = row.get(column)
    if (!value) throw new Error(`${column}_missing`)
    return value.toString()
  }
  text('private')
  const [id, topic, event] = [text('id'), text('topic'), text('event')]
  const binary = row.get('binary_payload')
  const payload = binary ? Buffer.from(binary.toString('latin1', 2), 'hex') : row.get('payload')
  if (!payload) throw new Error('payload_missing')
  if (payload.length > maxPayloadBytes) throw new Error('payload_size_exceeded')
  return { id, topic, event, encoding: binary ? 'binary' : 'json', payload }
}
