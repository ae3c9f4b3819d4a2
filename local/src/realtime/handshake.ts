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

/** An upgrade that is refused. */
export class UpgradeError extends Error {
  override readonly name = 'UpgradeError'
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/** The serializer that the request asks for; undefined for a version that nobody serves. */
export function readVersion(request: IncomingMessage): Version | undefined {
  const vsn = parameters(request).get('vsn') ?? '1.0.0'
  if (/^1\.0\.\d+$/.test(vsn)) return 1
  return /^2\.0\.\d+$/.test(vsn) ? 2 : undefined
}

/**
 * The key comes from the header `x-api-key` or the parameter `apikey`. An opaque key (`sb_…`) stands for the
 * JWT of its role: Supabase's gateway exchanges it.
 *
 * @throws {UpgradeError}
 */
export async function readKey(request: IncomingMessage, jwtSecret: string, keys: ApiKeys): Promise<string> {
  const key = headerText(request.headers['x-api-key']) ?? parameters(request).get('apikey')
  if (!key) throw new UpgradeError(401, 'API key is missing')
  const role = roleOfKey(keys, key)
  const token = role === 'anon' ? keys.anonKey : role === 'service_role' ? keys.serviceRoleKey : key
  try {
    await readToken(jwtSecret, token)
  } catch (error) {
    const { status, message } = upgradeRefusal(error)
    throw new UpgradeError(status, message)
  }
  return token
}

export function customHeaders(request: IncomingMessage): Record<string, string> {
  const entries = Object.entries(request.headers).filter(([name]) => name.startsWith('x-'))
  return Object.fromEntries(entries.map(([name, value]) => [name, headerText(value) ?? '']))
}

/** Answers an upgrade with a plain HTTP response. */
export function refuse(socket: Duplex, status: number, message?: string): void {
  const body = message === undefined ? '' : JSON.stringify({ error: message })
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'content-type: application/json; charset=utf-8',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
}

function parameters(request: IncomingMessage): URLSearchParams {
  return new URLSearchParams(request.url?.split('?')[1])
}

function headerText(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(', ') : value
}
