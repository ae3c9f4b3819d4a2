import type { Log } from '../../flow/context.ts'
import type { AnyFlow } from '../../flow/definition.ts'
import { codeOf } from '../faults.ts'
import { logFrom } from '../log.ts'
import { openTransport } from '../open.ts'
import { hostedFlows, type WorkerConnection } from '../options.ts'
import type { Transport } from '../transport.ts'
import { checkWebhooks, type WebhookSettings } from './settings.ts'
import { isSignedBy } from './signature.ts'
import { waitAt, webhookOf } from './wait-url.ts'

/** Characters of a request's body. */
const longestBody = 1_048_576

export type WebhookHandlerOptions = WorkerConnection & {
  /** Those whose waits have webhooks. */
  readonly flows: readonly AnyFlow[]
  readonly webhooks: WebhookSettings
  /** Where it logs what it refuses, and why. By default warnings and errors go to the console. */
  readonly log?: Log | false
}

/** What a request is answered with, as JSON. */
export type WebhookAnswer =
  /** 200: the wait is completed with what was sent; or was before, with the same. */
  | { readonly status: 'completed' }
  /** 400, 401, 404, 405, 409, 413; 503: send it again later */
  | { readonly status: 'refused'; readonly message: string }

/**
 * A request handler that completes waits: for servers of your own. `serveWorker` answers the same requests.
 *
 * @throws WorkerStartError if an option cannot work
 *
 * @example
 * const answer = webhookHandler({ flows, webhooks: { url: 'https://example.com/hooks', key }, connection })
 * app.post('/hooks/*', (context) => answer(context.req.raw)) // Hono, for instance
 */
export function webhookHandler(options: WebhookHandlerOptions): (request: Request) => Promise<Response> {
  const { flows, webhooks, log } = options
  checkWebhooks(webhooks)
  const hooks = new Webhooks(flows, webhooks, logFrom(log), () => openTransport(options))
  return async (request) => (await hooks.answer(request)) ?? refuse(404, 'There is no such wait')
}

/** Completes waits by requests. */
export class Webhooks {
  readonly #flows: ReadonlyMap<string, AnyFlow>
  readonly #settings: WebhookSettings
  readonly #log: Log
  readonly #open: () => Transport
  #transport: Transport | undefined

  constructor(flows: readonly AnyFlow[], settings: WebhookSettings, log: Log, open: () => Transport) {
    this.#flows = new Map(hostedFlows(flows).map((flow) => [flow.slug, flow]))
    this.#settings = settings
    this.#log = log
    this.#open = open
  }

  /** `undefined` where the URL is not that of a wait. What is unknown, foreign or wrong gets the same answer. */
  async answer(request: Request): Promise<Response | undefined> {
    const { key, secrets = {} } = this.#settings
    const wait = await waitAt(request.url, key)
    if (wait === null) return undefined
    const flow = wait && this.#flows.get(wait.flow_slug)
    const provider = flow && webhookOf(flow, wait.step_slug)
    if (wait === undefined || provider === undefined) return refuse(404, 'There is no such wait')
    if (request.method !== 'POST') return refuse(405, 'A wait is completed by POST')
    const body = await bodyOf(request)
    if (body === undefined) return refuse(413, `The body has more than ${longestBody} characters`)
    if (typeof provider === 'string') {
      const secret = secrets[provider]
      if (secret === undefined) {
        this.#log.error(`A webhook has no secret: give webhooks.secrets.${provider} to the worker`, {
          ...wait,
        })
        return refuse(503, 'The secret of the provider is missing')
      }
      const { headers } = request
      if (!(await isSignedBy(provider, { headers, body, secret, now: Date.now() / 1000 }))) {
        this.#log.warn('A webhook has no valid signature', { ...wait, provider })
        return refuse(401, 'The signature is missing, wrong or too old')
      }
    }
    const output = outputFrom(body, request.headers.get('content-type') ?? '')
    if (output === undefined) return refuse(400, 'The body is not JSON')
    try {
      this.#transport ??= this.#open()
      await this.#transport.completeWait({ ...wait, outputJson: output })
      return Response.json({ status: 'completed' } satisfies WebhookAnswer)
    } catch (error) {
      return this.#refusal(error, wait)
    }
  }

  #refusal(error: unknown, wait: object): Response {
    this.#log.warn('A webhook could not complete its wait', { ...wait, error })
    switch (codeOf(error)) {
      case 'PT404':
        return refuse(404, 'There is no such wait')
      case 'PT409':
        return refuse(409, 'The wait is over')
      case 'PT413':
        return refuse(413, 'The value is too large')
      case 'PT400':
      case '22P05':
        return refuse(400, 'That is not what the wait takes')
      default:
        return refuse(503, 'Send it again later', { 'retry-after': '5' })
    }
  }
}

function refuse(status: number, message: string, headers: Record<string, string> = {}): Response {
  return Response.json({ status: 'refused', message } satisfies WebhookAnswer, { status, headers })
}

async function bodyOf(request: Request): Promise<string | undefined> {
  if (Number(request.headers.get('content-length')) > longestBody) return undefined
  const body = await request.text()
  return body.length > longestBody ? undefined : body
}

/** What completes the wait, as JSON text: JSON as it is, a form as an object (of Slack: its payload), nothing as `null`. */
function outputFrom(body: string, contentType: string): string | undefined {
  if (body === '') return 'null'
  if (contentType.includes('application/x-www-form-urlencoded')) {
    const form = Object.fromEntries(new URLSearchParams(body))
    return form.payload === undefined ? JSON.stringify(form) : jsonFrom(form.payload)
  }
  return jsonFrom(body)
}

function jsonFrom(text: string): string | undefined {
  try {
    JSON.parse(text)
    return text
  } catch {
    return undefined
  }
}
