import { type IncomingMessage, STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { type ApiKeys, roleOfKey } from '../tokens.ts'
import type { Version } from './frames.ts'
import { readToken, upgradeRefusal } from './token.ts'

/** What an upgrade request settles for its socket. */
export interface Handshake {
  version: Version
  /** The JWT that stands for the API key. */
  token: string
  /** The request's headers that begin with `x-`. */
  headers: Record<string, string>
}

/** An upgrade that is refused; without a message the response has no body. */
export class UpgradeError extends Error {
  override readonly name = 'UpgradeError'
  readonly status: number

  constructor(status: number, message?: string) {
    super(message)
    this.status = status
  }
}

/** @throws {UpgradeError} */
export async function readHandshake(
  request: IncomingMessage,
  jwtSecret: string,
  keys: ApiKeys,
): Promise<Handshake> {
  const parameters = new URLSearchParams(request.url?.split('?')[1])
  const version = readVersion(parameters.get('vsn') ?? '1.0.0')
  const key = headerText(request.headers['x-api-key']) ?? parameters.get('apikey')
  if (!key) throw new UpgradeError(401, 'API key is missing')
  const token = tokenOf(key, keys)
  await readToken(jwtSecret, token).catch((error) => {
    const { status, message } = upgradeRefusal(error)
    throw new UpgradeError(status, message)
  })
  return { version, token, headers: customHeaders(request) }
}

function readVersion(vsn: string): Version {
  if (/^1\.0\.\d+$/.test(vsn)) return 1
  if (/^2\.0\.\d+$/.test(vsn)) return 2
  throw new UpgradeError(403)
}

/** An opaque key (`sb_…`) stands for the JWT of its role: Supabase's gateway exchanges it. */
function tokenOf(key: string, keys: ApiKeys): string {
  const role = roleOfKey(keys, key)
  if (role === 'anon') return keys.anonKey
  return role === 'service_role' ? keys.serviceRoleKey : key
}

function customHeaders(request: IncomingMessage): Record<string, string> {
  const entries = Object.entries(request.headers).filter(([name]) => name.startsWith('x-'))
  return Object.fromEntries(entries.map(([name, value]) => [name, headerText(value) ?? '']))
}

/** Answers an upgrade with a plain HTTP response. */
export function refuse(socket: Duplex, { status, message }: UpgradeError): void {
  const body = message === '' ? '' : JSON.stringify({ error: message })
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'content-type: application/json; charset=utf-8',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
}

function headerText(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(', ') : value
}
