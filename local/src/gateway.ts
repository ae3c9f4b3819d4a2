import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { Socket } from 'node:net'
import pg from 'pg'
import { answerAuth } from './auth/auth.ts'
import { messageOf } from './errors.ts'
import { HttpError, json, preflight, type Reply, send } from './http.ts'
import { type Credentials, requireApiKey } from './identity.ts'
import { HOST, listen, PortBusyError } from './ports.ts'
import type { Postgres } from './postgres.ts'
import type { Realtime } from './realtime/index.ts'
import { restError } from './rest/errors.ts'
import { callRpc } from './rest/rpc.ts'

export interface GatewayOptions extends Credentials {
  port: number | undefined
  admin: Postgres['admin']
  schemas: string[]
  realtime: Realtime
  log: (line: string) => void
}

export interface Gateway {
  readonly url: string
  stop(): Promise<void>
}

/** How many connections the platform's smallest project gives to REST. */
const REST_CONNECTIONS = 10
const AUTH_CONNECTIONS = 2

/** Listens for HTTP requests and WebSockets, and hands them to the part of the stack that answers them. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const { admin, log, realtime } = options
  const rest = poolOf({ ...admin, user: 'authenticator', max: REST_CONNECTIONS }, log)
  const auth = poolOf({ ...admin, max: AUTH_CONNECTIONS }, log)
  const { port, server } = await openServer(options.port ?? 0)
  const url = `http://${HOST}:${port}`

  async function answer(request: IncomingMessage): Promise<Reply> {
    const target = targetOf(request, url)
    if (request.method === 'OPTIONS') return preflight(request)
    if (!/^\/(rest|auth)\/v1(\/|$)/.test(target.pathname)) throw notServed(target.pathname)
    const apiKey = await requireApiKey(request, target, options)
    if (target.pathname.startsWith('/auth/v1')) {
      return answerAuth(request, target, {
        pool: auth,
        jwtSecret: options.jwtSecret,
        issuer: `${url}/auth/v1`,
      })
    }
    const name = /^\/rest\/v1\/rpc\/([^/]+)$/.exec(target.pathname)?.[1]
    if (!name) throw functionsOnly()
    return callRpc(request, target, decode(name), apiKey, {
      ...options,
      credentials: options,
      pool: rest,
    })
  }

  server.on('request', (request, response) => {
    answer(request)
      .catch((error) => refusal(error, log))
      .then((reply) => send(response, reply))
      .catch((error) => log(`${request.method} ${request.url}: ${messageOf(error)}`))
  })
  const sockets = new Set<Socket>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  server.on('upgrade', (request, socket, head) => {
    const { pathname } = targetOf(request, url)
    if (/^(\/realtime\/v1|\/socket)\/websocket$/.test(pathname)) realtime.upgrade(request, socket, head)
    else socket.end('HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n')
  })

  return {
    url,
    async stop() {
      await closeServer(server, sockets)
      await Promise.all([rest.end(), auth.end()])
    },
  }
}

async function openServer(port: number): Promise<{ port: number; server: Server }> {
  const server = createServer()
  try {
    return { port: await listen(server, port), server }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw code === 'EADDRINUSE' ? new PortBusyError(port, 'port', error) : error
  }
}

/** Closes all connections: the server itself would wait for those that have become WebSockets. */
async function closeServer(server: Server, sockets: ReadonlySet<Socket>): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve))
  for (const socket of sockets) socket.destroy()
  await closed
}

/** What a request is for; anything that is not a path counts as the root. */
function targetOf({ url = '/' }: IncomingMessage, base: string): URL {
  return new URL(url.startsWith('/') ? base + url : base)
}

function decode(name: string): string {
  try {
    return decodeURIComponent(name)
  } catch {
    throw restError(400, 'PGRST100', `The name ${name} is not a valid part of a URL`)
  }
}

/** A pool that survives the loss of its connections, as when Postgres is stopped. */
function poolOf(config: pg.PoolConfig, log: (line: string) => void): pg.Pool {
  const pool = new pg.Pool({ ...config, connectionTimeoutMillis: 10_000, idleTimeoutMillis: 60_000 })
  pool.on('error', (error) => log(`idle connection lost: ${error.message}`))
  // One that is in use is missed by its query.
  pool.on('connect', (client) => client.on('error', () => {}))
  return pool
}

function refusal(error: unknown, log: (line: string) => void): Reply {
  if (error instanceof HttpError) return json(error.status, error.body, error.headers)
  log(`internal error: ${error instanceof Error ? error.stack : error}`)
  return json(500, { code: 'XX000', message: messageOf(error), details: null, hint: null })
}

function notServed(path: string): HttpError {
  return new HttpError(404, {
    code: '404',
    message: `The local stack has nothing at ${path}.`,
    details: null,
    hint: 'It has /rest/v1/rpc/<function>, /auth/v1 (anonymous sign-in) and /realtime/v1/websocket.',
  })
}

function functionsOnly(): HttpError {
  return new HttpError(501, {
    code: '501',
    message: 'The local stack serves functions only, not tables.',
    details: null,
    hint: 'Call a function with .rpc(), or use "supabase start", which serves tables too.',
  })
}
