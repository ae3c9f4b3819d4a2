import type { IncomingMessage, ServerResponse } from 'node:http'

/** What a part of the gateway answers. */
export interface Reply {
  status: number
  headers?: Record<string, string>
  /** JSON text, sent as it is. */
  body?: string
}

/** A refusal with a status; `body` is what the caller gets to read. */
export class HttpError extends Error {
  override readonly name = 'HttpError'
  readonly status: number
  readonly body: unknown
  readonly headers: Record<string, string>

  constructor(status: number, body: unknown, headers: Record<string, string> = {}) {
    super(`HTTP ${status}`)
    this.status = status
    this.body = body
    this.headers = headers
  }
}

const JSON_TYPE = 'application/json; charset=utf-8'

export const json = (status: number, body: unknown, headers: Record<string, string> = {}): Reply => ({
  status,
  headers,
  body: JSON.stringify(body),
})

/** Whatever a request may carry at most, in bytes. */
const BODY_LIMIT = 100 * 1024 * 1024

/**
 * The body as text.
 *
 * @throws {HttpError} 413 where it exceeds 100 MB
 */
export async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  // Not destroyed when this is left early: the answer goes through the same connection.
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    size += chunk.length
    if (size > BODY_LIMIT) throw tooLarge(request)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function tooLarge(request: IncomingMessage): HttpError {
  request.resume() // the client reads the answer only after it has sent everything
  const message = `The request body exceeds ${BODY_LIMIT / 1024 / 1024} MB.`
  return new HttpError(413, { code: '413', message, details: null, hint: null })
}

export function send(response: ServerResponse, { status, headers = {}, body }: Reply): void {
  if (response.headersSent || response.destroyed) return
  const type = body === undefined ? {} : { 'content-type': JSON_TYPE }
  response.writeHead(status, { ...CORS, ...type, ...headers }).end(body)
}

const CORS = {
  'access-control-allow-origin': '*',
  'access-control-expose-headers': 'Content-Range, Content-Profile, WWW-Authenticate',
}

/** The answer to a browser that asks whether it may send a request from another origin. */
export function preflight(request: IncomingMessage): Reply {
  const headers = request.headers['access-control-request-headers'] ?? '*'
  return {
    status: 204,
    headers: {
      'access-control-allow-methods': 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS',
      'access-control-allow-headers': String(headers),
      'access-control-max-age': '3600',
    },
  }
}
