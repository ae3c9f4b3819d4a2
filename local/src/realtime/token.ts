import { type Claims, TokenError, type TokenProblem, verifyToken } from '../tokens.ts'

const REQUIRED = 'Fields `role` and `exp` are required in JWT'
const SIGNER = 'Failed to generate JWT signer, check your JWT secret or JWKS configuration'

/** What the platform calls each problem, and says about it. */
const PROBLEMS: Record<TokenProblem, { code: string; text: string }> = {
  malformed: { code: 'MalformedJWT', text: 'The token provided is not a valid JWT' },
  algorithm: { code: 'JwtSignerError', text: SIGNER },
  signature: { code: 'JwtSignatureError', text: 'Failed to validate JWT signature' },
  expired: { code: 'InvalidJWTToken', text: 'Token has expired' },
  'not-yet-valid': { code: 'InvalidJWTToken', text: 'Token is not valid yet' },
  incomplete: { code: 'InvalidJWTToken', text: REQUIRED },
  claims: { code: 'InvalidJWTToken', text: REQUIRED },
}

/** A token that the server accepts. */
export interface Token {
  text: string
  claims: Claims & { exp: number }
}

/** @throws {TokenError} */
export async function readToken(jwtSecret: string, text: string): Promise<Token> {
  const claims = await verifyToken(jwtSecret, text)
  const { exp } = claims
  if (exp === undefined) throw new TokenError('incomplete', REQUIRED)
  return { text, claims: { ...claims, exp } }
}

/** How an upgrade is refused. */
export function upgradeRefusal(error: unknown): { status: number; message: string } {
  if (!(error instanceof TokenError) || error.reason === 'claims') {
    return { status: 500, message: 'Error connecting to Realtime' }
  }
  return { status: 401, message: PROBLEMS[error.reason].text }
}

/** Why a join is refused. */
export function joinRefusal(error: TokenError): string {
  return `${PROBLEMS[error.reason].code}: ${explain(error)}`
}

/** Why a joined channel is closed when it is given this token. */
export function closeReason(error: TokenError): string {
  return error.reason === 'signature' ? ':signature_error' : explain(error)
}

export function expiredText(seconds: number): string {
  return `${PROBLEMS.expired.text} ${seconds} seconds ago`
}

function explain(error: TokenError): string {
  return error.reason === 'expired' ? expiredText(error.expiredSeconds) : PROBLEMS[error.reason].text
}
