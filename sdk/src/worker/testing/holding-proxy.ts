import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** Where the traffic of a connection stops: before the database gets this of its client, or before the client gets that of the database. */
export type Point = readonly ['sends' | 'gets', text: string]

/** A proxy before a database, which holds connections where a test wants it. */
export interface HoldingProxy extends AsyncDisposable {
  readonly url: string
  /** The next connection that begins a transaction stops at this point. Resolves when it has. */
  hold(point: Point): Promise<void>
  /** The next connection whose client sends this stops there. */
  holdAny(text: string): Promise<void>
}

interface Held {
  readonly point: Point
  readonly reached: () => void
}

export async function startHoldingProxy(databaseUrl: string): Promise<HoldingProxy> {
  const target = new URL(databaseUrl)
  const points: Held[] = []
  const texts: { text: string; reached: () => void }[] = []
  const sockets = new Set<Socket>()

  const server = createServer((client) => {
    const database = connect(Number(target.port), target.hostname)
    let held: Held | undefined
    let isHeld = false
    /** `SELECT 1` is the answer to the completion, once that was sent. */
    let sent = ''
    for (const [socket, other] of [
      [client, database],
      [database, client],
    ] as const) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        other.destroy()
      })
    }
    const stop = (reached: () => void) => {
      isHeld = true
      reached()
    }
    client.on('data', (data) => {
      if (isHeld) return
      const text = data.toString('latin1')
      const any = texts.findIndex((one) => text.includes(one.text))
      if (any >= 0) return stop(texts.splice(any, 1)[0]!.reached)
      if (text.includes('begin')) held ??= points.shift()
      sent += text
      if (held?.point[0] === 'sends' && text.includes(held.point[1])) return stop(held.reached)
      database.write(data)
    })
    database.on('data', (data) => {
      if (isHeld) return
      const [kind, tag] = held?.point ?? []
      const isAnswer = tag !== 'SELECT 1' || sent.includes('complete_in_transaction')
      if (kind === 'gets' && isAnswer && data.includes(tag!)) return stop(held!.reached)
      client.write(data)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = new URL(databaseUrl)
  url.port = String((server.address() as AddressInfo).port)
  return {
    url: url.href,
    hold: (point) => new Promise((reached) => points.push({ point, reached })),
    holdAny: (text) => new Promise((reached) => texts.push({ text, reached })),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
