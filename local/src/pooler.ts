import { createServer, type Socket } from 'node:net'
import pg from 'pg'
import { messageOf } from './errors.ts'
import { listen } from './ports.ts'
import type { Postgres } from './postgres.ts'
import { sameText } from './tokens.ts'

export interface Pooler {
  readonly port: number
  stop(): Promise<void>
}

/**
 * A transaction pooler, as the platform has one: connections are lent for one transaction each. The next to be lent is
 * the one that came back first, so that a client does not find its session again.
 */
export async function startPooler(database: Postgres['admin'], log: (line: string) => void): Promise<Pooler> {
  const lender = new Lender(database)
  const clients = new Set<Socket>()
  const server = createServer((socket) => {
    clients.add(socket)
    socket.on('close', () => clients.delete(socket))
    socket.on('error', (error) => log(`pooler: ${error.message}`))
    new PoolerClient(socket, database.password, lender)
  })
  return {
    port: await listen(server, 0),
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of clients) socket.destroy()
      lender.end()
      await closed
    },
  }
}

const MOST_CONNECTIONS = 10

/** The connections to Postgres. */
class Lender {
  readonly #database: pg.ClientConfig
  readonly #open = new Set<Socket>()
  #count = 0
  readonly #idle: Socket[] = []
  readonly #waiting: { resolve: (socket: Socket) => void; reject: (error: Error) => void }[] = []

  constructor(database: pg.ClientConfig) {
    this.#database = database
  }

  /** Two are kept at least: the one that came back last is lent only if there is no other. */
  async lend(): Promise<Socket> {
    if (this.#idle.length < 2 && this.#count < MOST_CONNECTIONS) return this.#connect()
    return this.#idle.shift() ?? new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }))
  }

  takeBack(socket: Socket): void {
    const next = this.#waiting.shift()
    if (next) next.resolve(socket)
    else this.#idle.push(socket)
  }

  end(): void {
    for (const socket of this.#open) socket.destroy()
  }

  /** `pg` signs in; from then on the socket is ours. */
  async #connect(): Promise<Socket> {
    this.#count++
    const client = new pg.Client(this.#database)
    client.on('error', () => {})
    try {
      await client.connect()
    } catch (error) {
      this.#count--
      throw error
    }
    const { stream } = (client as unknown as { connection: { stream: Socket } }).connection
    stream.removeAllListeners('data')
    this.#open.add(stream)
    stream.on('close', () => this.#forget(stream))
    return stream
  }

  #forget(socket: Socket): void {
    this.#open.delete(socket)
    this.#count--
    if (this.#idle.includes(socket)) this.#idle.splice(this.#idle.indexOf(socket), 1)
    for (const { reject } of this.#waiting.splice(0)) reject(new Error('a connection to Postgres was lost'))
  }
}

const CANCEL = 80877102
const ENCRYPTION = [80877103, 80877104]

/** Speaks the protocol as far as it must know where transactions end. */
class PoolerClient {
  readonly #socket: Socket
  readonly #password: string
  readonly #lender: Lender
  #state: 'startup' | 'password' | 'ready' = 'startup'
  #lent: Socket | undefined
  /** What waits for a connection. */
  #unsent: Buffer[] = []
  /** How many answers are under way that end with a ReadyForQuery. */
  #awaited = 0
  /** Whether messages were sent that no Sync has ended yet. */
  #isOpen = false

  constructor(socket: Socket, password: string, lender: Lender) {
    this.#socket = socket
    this.#password = password
    this.#lender = lender
    const read = messageReader(() => (this.#state === 'startup' ? 0 : 1))
    socket.on('data', (chunk) => {
      for (const message of read(chunk)) this.#handle(message)
    })
    socket.on('close', () => this.#lent?.destroy())
  }

  #handle(message: Buffer): void {
    if (this.#state === 'startup') this.#startUp(message.readInt32BE(4))
    else if (this.#state === 'password') this.#signIn(message.subarray(5, -1).toString())
    else if (typeOf(message) === 'X') this.#socket.end()
    else this.#pass(message)
  }

  #startUp(code: number): void {
    if (code === CANCEL) this.#socket.end()
    else if (ENCRYPTION.includes(code)) this.#socket.write('N')
    else {
      this.#state = 'password'
      this.#socket.write(messageOfType('R', int32(3)))
    }
  }

  #signIn(password: string): void {
    if (sameText(password, this.#password)) {
      this.#state = 'ready'
      this.#socket.write(Buffer.concat([messageOfType('R', int32(0)), messageOfType('Z', Buffer.from('I'))]))
    } else {
      this.#refuse('28P01', 'password authentication failed')
    }
  }

  #pass(message: Buffer): void {
    const isEnd = 'QS'.includes(typeOf(message))
    this.#isOpen = !isEnd
    if (isEnd) this.#awaited++
    if (this.#lent) this.#lent.write(message)
    else if (this.#unsent.push(message) === 1) {
      this.#lender.lend().then(
        (socket) => this.#borrow(socket),
        (error) => this.#refuse('08006', messageOf(error)),
      )
    }
  }

  #borrow(socket: Socket): void {
    const read = messageReader(() => 1)
    const onData = (chunk: Buffer) => {
      this.#socket.write(chunk)
      for (const message of read(chunk)) {
        if (typeOf(message) !== 'Z') continue
        this.#awaited--
        if (this.#awaited > 0 || this.#isOpen || message[5] !== 'I'.charCodeAt(0)) continue
        socket.off('data', onData)
        socket.off('close', onClose)
        this.#lent = undefined
        this.#lender.takeBack(socket)
      }
    }
    const onClose = () => this.#socket.destroy()
    socket.on('data', onData)
    socket.on('close', onClose)
    this.#lent = socket
    socket.write(Buffer.concat(this.#unsent))
    this.#unsent = []
    if (this.#socket.destroyed) socket.destroy()
  }

  #refuse(code: string, message: string): void {
    this.#socket.end(messageOfType('E', Buffer.from(`SFATAL\0C${code}\0M${message}\0\0`)))
  }
}

/** Cuts what arrives into messages; the first byte of most is a type, then comes the length of the rest. */
function messageReader(typeLength: () => 0 | 1): (chunk: Buffer) => Generator<Buffer> {
  let rest = Buffer.alloc(0)
  return function* (chunk) {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 5) {
      const end = typeLength() + rest.readInt32BE(typeLength())
      if (rest.length < end) return
      const message = rest.subarray(0, end)
      rest = rest.subarray(end)
      yield message
    }
  }
}

const typeOf = (message: Buffer) => String.fromCharCode(message[0]!)

function messageOfType(type: string, body: Buffer): Buffer {
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body])
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}
