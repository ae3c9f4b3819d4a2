import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** A proxy before a database, which counts what passes. */
export interface CountingProxy extends AsyncDisposable {
  /** The URL of the database through the proxy. */
  readonly url: string
  /** Bytes that the database has sent. */
  readonly received: () => number
  /** Messages that made the database do something: simple queries, and executions of prepared ones. */
  readonly queries: () => number
  /** How often a client has waited for an answer: after a simple query, a Sync or a Flush. */
  readonly roundTrips: () => number
  /** Cuts all connections. */
  cut(): void
  /** Lets all connections die in silence; new ones live. */
  freeze(): void
}

export async function startProxy(databaseUrl: string): Promise<CountingProxy> {
  const target = new URL(databaseUrl)
  const sockets = new Set<Socket>()
  let received = 0
  let queries = 0
  let roundTrips = 0

  const server = createServer((client) => {
    const database = connect(Number(target.port), target.hostname)
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
    const count = messageCounter((type) => {
      if (type === 'Q' || type === 'E') queries++
      if (type === 'Q' || type === 'S' || type === 'H') roundTrips++
    })
    client.on('data', (data) => {
      count(data)
      database.write(data)
    })
    database.on('data', (data) => {
      received += data.length
      client.write(data)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = new URL(databaseUrl)
  url.port = String((server.address() as AddressInfo).port)

  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  const freeze = () => {
    for (const socket of sockets) socket.pause()
  }
  return {
    url: url.href,
    received: () => received,
    queries: () => queries,
    roundTrips: () => roundTrips,
    cut,
    freeze,
    [Symbol.asyncDispose]: async () => {
      cut()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Calls back for each message of a client, with its type; the first one of a connection has none. */
function messageCounter(onMessage: (type: string | undefined) => void): (data: Buffer) => void {
  let isFirst = true
  let rest: Buffer = Buffer.alloc(0)
  return (data) => {
    rest = Buffer.concat([rest, data])
    while (rest.length >= 5) {
      const length = isFirst ? rest.readUInt32BE(0) : rest.readUInt32BE(1) + 1
      if (rest.length < length) return
      onMessage(isFirst ? undefined : String.fromCharCode(rest[0]!))
      rest = rest.subarray(length)
      isFirst = false
    }
  }
}
