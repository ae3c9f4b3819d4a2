import { createHmac, timingSafeEqual } from 'node:crypto'
import { errors, type JWTPayload, jwtVerify, SignJWT } from 'jose'

/** What a JWT says about its bearer, besides the registered claims (`sub`, `exp`, …). */
export interface Claims extends JWTPayload {
  role?: string
}

/** The four keys of a stack: two opaque ones and their older forms, which are JWTs. */
export interface ApiKeys {
  /** `sb_publishable_…`, the role `anon`. */
  publishable: string
  /** `sb_secret_…`, the role `service_role`. */
  secret: string
  anonKey: string
  serviceRoleKey: string
}

/**
 * Why a token is refused.
 * - `malformed`: not a JWT at all
 * - `algorithm`: a JWT, but not signed by a shared secret (`alg: none`, RS256, …)
 * - `signature`: signed with another secret
 * - `expired`: see {@link TokenError.expiredSeconds}
 * - `not-yet-valid`: its `nbf` lies in the future
 * - `incomplete`: a required claim is missing
 * - `claims`: a registered claim has the wrong type, such as an `exp` that is a string
 */
export type TokenProblem =
  | 'malformed'
  | 'algorithm'
  | 'signature'
  | 'expired'
  | 'not-yet-valid'
  | 'incomplete'
  | 'claims'

/** A token that is refused; `reason` says why. */
export class TokenError extends Error {
  override readonly name = 'TokenError'
  readonly reason: TokenProblem
  /** How long ago the token expired, in whole seconds; 0 unless `reason` is `expired`. */
  readonly expiredSeconds: number

  constructor(reason: TokenProblem, message: string, expiredSeconds = 0) {
    super(message)
    this.reason = reason
    this.expiredSeconds = expiredSeconds
  }
}

const ALGORITHMS = ['HS256', 'HS384', 'HS512']
const HOUR = 3600
/** 2100-01-01: API keys do not expire in practice. */
const KEY_EXPIRY = 4_102_444_800

const bytes = (secret: string) => new TextEncoder().encode(secret)
const nowSeconds = () => Math.floor(Date.now() / 1000)

/**
 * Signs a user's token. A claim given as `undefined` is left out.
 *
 * @default `role` and `aud` are `authenticated`, `iat` is now, `exp` is in one hour
 * @example await signToken(secret, { sub: crypto.randomUUID() })
 */
export function signToken(secret: string, claims: Record<string, unknown> = {}): Promise<string> {
  const now = nowSeconds()
  const defaults = { aud: 'authenticated', role: 'authenticated', iat: now, exp: now + HOUR }
  return sign(secret, { ...defaults, ...claims })
}

function sign(secret: string, claims: Record<string, unknown>): Promise<string> {
  return new SignJWT(claims).setProtectedHeader({ alg: 'HS256', typ: 'JWT' }).sign(bytes(secret))
}

export interface VerifyOptions {
  /** Claims that must be there. @default ['role', 'exp'] */
  required?: string[]
  /** How many seconds past its expiry a token is still accepted. @default 0 */
  leeway?: number
}

/**
 * The claims of a token that is genuine and in date.
 *
 * @throws {TokenError} with the reason
 */
export async function verifyToken(
  secret: string,
  token: string,
  { required = ['role', 'exp'], leeway = 0 }: VerifyOptions = {},
): Promise<Claims> {
  try {
    const options = { algorithms: ALGORITHMS, requiredClaims: required, clockTolerance: leeway }
    const { payload } = await jwtVerify<Claims>(token, bytes(secret), options)
    return payload
  } catch (error) {
    throw tokenError(error)
  }
}

function tokenError(error: unknown): TokenError {
  if (error instanceof errors.JWTExpired) {
    return new TokenError('expired', 'JWT expired', nowSeconds() - (error.payload.exp ?? 0))
  }
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.reason === 'missing') return new TokenError('incomplete', error.message)
    if (error.claim === 'nbf' && error.reason === 'check_failed') {
      return new TokenError('not-yet-valid', 'JWT not yet valid')
    }
    return new TokenError('claims', error.message)
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) {
    return new TokenError('signature', 'Failed to validate JWT signature')
  }
  if (error instanceof errors.JOSEAlgNotAllowed) {
    return new TokenError('algorithm', `JWT must be signed with one of ${ALGORITHMS.join(', ')}`)
  }
  return new TokenError('malformed', 'The token provided is not a valid JWT')
}

/** A value that only the holder of the secret can name; the same for the same secret and purpose. */
export function derive(secret: string, purpose: string, length: number): string {
  return createHmac('sha256', secret).update(purpose).digest('base64url').slice(0, length)
}

/** The stack's API keys, a function of its secret: a kept database keeps its keys. */
export async function createKeys(secret: string): Promise<ApiKeys> {
  const opaque = (kind: string) =>
    `sb_${kind}_${derive(secret, kind, 22)}_${derive(secret, `${kind} end`, 8)}`
  const jwt = (role: string) => sign(secret, { iss: 'pgflow-local', role, exp: KEY_EXPIRY })
  return {
    publishable: opaque('publishable'),
    secret: opaque('secret'),
    anonKey: await jwt('anon'),
    serviceRoleKey: await jwt('service_role'),
  }
}

/** The role of an opaque key (`sb_…`), or undefined when it is not one of this stack's. */
export function roleOfKey(
  keys: Pick<ApiKeys, 'publishable' | 'secret'>,
  key: string,
): 'anon' | 'service_role' | undefined {
  if (sameText(key, keys.publishable)) return 'anon'
  if (sameText(key, keys.secret)) return 'service_role'
  return undefined
}

export function sameText(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}
