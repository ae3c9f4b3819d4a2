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
  /** Cuts all connections. */
  cut(): void
}

export interface ProxyOptions {
  /** Keeps notifications back, as a transaction pooler does. */
  readonly dropNotifications?: boolean
}

export async function startProxy(databaseUrl: string, options: ProxyOptions = {}): Promise<CountingProxy> {
  const target = new URL(databaseUrl)
  const sockets = new Set<Socket>()
  let received = 0
  let queries = 0

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
    // The first message of a client has no type.
    const requests = messages(true, (type) => {
      if (type === 'Q' || type === 'E') queries++
      return true
    })
    const answers = messages(false, (type) => type !== 'A' || options.dropNotifications !== true)
    client.on('data', (data) => database.write(requests(data)))
    database.on('data', (data) => {
      received += data.length
      client.write(answers(data))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = new URL(databaseUrl)
  url.port = String((server.address() as AddressInfo).port)

  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    url: url.href,
    received: () => received,
    queries: () => queries,
    cut,
    [Symbol.asyncDispose]: async () => {
      cut()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Cuts a stream into messages of Postgres' protocol, and passes on those that it may. */
function messages(startsUntyped: boolean, mayPass: (type: string) => boolean): (data: Buffer) => Buffer {
  let isUntyped = startsUntyped
  let rest: Buffer = Buffer.alloc(0)
  return (data) => {
    rest = Buffer.concat([rest, data])
    const passed: Buffer[] = []
    while (rest.length >= (isUntyped ? 4 : 5)) {
      const length = isUntyped ? rest.readUInt32BE(0) : rest.readUInt32BE(1) + 1
      if (rest.length < length) break
      if (isUntyped || mayPass(String.fromCharCode(rest[0]!))) passed.push(rest.subarray(0, length))
      rest = rest.subarray(length)
      isUntyped = false
    }
    return Buffer.concat(passed)
  }
}
