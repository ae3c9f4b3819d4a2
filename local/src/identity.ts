import type { IncomingMessage } from 'node:http'
import { HttpError } from './http.ts'
import { type ApiKeys, type Claims, roleOfKey, type VerifyOptions, verifyToken } from './tokens.ts'

/** What requests are checked against. */
export interface Credentials {
  jwtSecret: string
  keys: ApiKeys
}

/** The user's token, where the request carries one besides its API key. */
export function bearerOf(request: IncomingMessage): string | undefined {
  return /^bearer\s+(.*)$/i.exec(request.headers.authorization ?? '')?.[1]
}

/**
 * Lets pass what carries one of the stack's API keys, as the platform's gateway does.
 *
 * @throws {HttpError} 401
 */
export async function requireApiKey(
  request: IncomingMessage,
  url: URL,
  credentials: Credentials,
): Promise<string> {
  const key = request.headers.apikey?.toString() ?? url.searchParams.get('apikey')
  if (!key) {
    const hint = 'No `apikey` request header or url param was found.'
    throw new HttpError(401, { message: 'No API key found in request', hint })
  }
  if (!(await isKey(key, credentials))) {
    const hint = 'Double check the API key: it is one of those that startLocalSupabase returned.'
    throw new HttpError(401, { message: 'Invalid API key', hint })
  }
  return key
}

async function isKey(key: string, { jwtSecret, keys }: Credentials): Promise<boolean> {
  if (roleOfKey(keys, key)) return true
  return verifyToken(jwtSecret, key).then(
    () => true,
    () => false,
  )
}

/**
 * Who asks: the user's token decides, or else the API key. An opaque key sent as a token is the key again.
 *
 * @throws {TokenError} for a token that is refused
 */
export async function identify(
  request: IncomingMessage,
  apiKey: string,
  { jwtSecret, keys }: Credentials,
  options: VerifyOptions,
): Promise<Claims> {
  const token = bearerOf(request) ?? apiKey
  const role = roleOfKey(keys, token)
  return role ? { role } : verifyToken(jwtSecret, token, options)
}
