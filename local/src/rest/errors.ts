import pg from 'pg'
import { HttpError } from '../http.ts'
import { TokenError, type TokenProblem } from '../tokens.ts'

/** The body of every REST error. */
export interface RestErrorBody {
  code: string
  message: string
  details: unknown
  hint: unknown
}

/** An error as PostgREST answers it. */
export function restError(
  status: number,
  code: string,
  message: string,
  { details = null, hint = null, headers = {} }: RestErrorOptions = {},
): HttpError {
  return new HttpError(status, { code, message, details, hint } satisfies RestErrorBody, headers)
}

interface RestErrorOptions {
  details?: unknown
  hint?: unknown
  headers?: Record<string, string>
}

/** The answer to whatever was thrown while a request was served by the role. */
export function toRestError(error: unknown, role: string): HttpError {
  if (error instanceof HttpError) return error
  if (error instanceof TokenError) return tokenRefused(error)
  if (error instanceof pg.DatabaseError) return databaseError(error, role)
  const details = error instanceof Error ? error.message : String(error)
  return restError(503, 'PGRST001', 'Could not connect with the database due to an internal error.', {
    details,
  })
}

const TOKEN_MESSAGES: Partial<Record<TokenProblem, string>> = {
  algorithm: 'Wrong or unsupported encoding algorithm',
  signature: 'No suitable key or wrong key type',
  expired: 'JWT expired',
  'not-yet-valid': 'JWT not yet valid',
  claims: 'Parsing claims failed',
}

function tokenRefused({ reason, message }: TokenError): HttpError {
  const text = TOKEN_MESSAGES[reason] ?? message
  const code = ['expired', 'not-yet-valid', 'claims', 'incomplete'].includes(reason) ? 'PGRST303' : 'PGRST301'
  const headers = { 'www-authenticate': `Bearer error="invalid_token", error_description="${text}"` }
  return restError(401, code, text, { headers })
}

function databaseError(error: pg.DatabaseError, role: string): HttpError {
  const { code = 'XX000', message, detail = null, hint = null } = error
  if (code === 'PGRST') return raisedResponse(error)
  const status = statusOf(code, message, role)
  const headers = status === 401 ? { 'www-authenticate': 'Bearer' } : undefined
  return restError(status, code, message, { details: detail, hint, ...(headers && { headers }) })
}

/** By SQLSTATE, else by its class; the table is PostgREST's. */
function statusOf(code: string, message: string, role: string): number {
  if (code === '42501') return role === 'anon' ? 401 : 403
  if (code === '22023') return /^role .* does not exist$/.test(message) ? 401 : 400
  if (code === '21000') return message.endsWith('requires a WHERE clause') ? 400 : 500
  if (code.startsWith('PT')) return /^[1-5]\d\d$/.test(code.slice(2)) ? Number(code.slice(2)) : 500
  return STATUS[code] ?? STATUS[code.slice(0, 2)] ?? 400
}

const STATUS: Record<string, number> = {
  '08': 503,
  '09': 500,
  '0L': 403,
  '0P': 403,
  '23503': 409,
  '23505': 409,
  '25006': 405,
  '25': 500,
  '28': 403,
  '2D': 500,
  '38': 500,
  '39': 500,
  '3B': 500,
  '40': 500,
  '42883': 404,
  '42P01': 404,
  '42P17': 500,
  '53400': 500,
  '53': 503,
  '54': 500,
  '55': 500,
  '57P01': 503,
  '57': 500,
  '58': 500,
  F0: 500,
  HV: 500,
  P0001: 400,
  P0: 500,
  XX: 500,
}

/** `raise sqlstate 'PGRST'` writes the whole response: the body as its message, status and headers as its detail. */
function raisedResponse({ message, detail }: pg.DatabaseError): HttpError {
  try {
    const body = JSON.parse(message) as RestErrorBody
    const { status, headers = {} } = JSON.parse(detail ?? '') as {
      status: number
      headers?: Record<string, string>
    }
    const { details = null, hint = null } = body
    return restError(status, body.code, body.message, { details, hint, headers })
  } catch {
    return restError(500, 'PGRST121', 'Could not parse JSON in the "RAISE SQLSTATE \'PGRST\'" error', {
      details: 'Message and detail must be JSON objects: {"code", "message"} and {"status", "headers"}.',
    })
  }
}
