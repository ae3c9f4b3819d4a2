import type { AnyFlow } from '../flow/definition.ts'
import type { Duration } from '../shared/duration.ts'
import { WorkerStartError } from './errors.ts'
import { logFrom } from './log.ts'
import { openTransport } from './open.ts'
import { checkOptions, secondsFrom, type WorkerOptions } from './options.ts'
import { sameSecret } from './secret.ts'
import { startWorker, type Worker } from './start.ts'
import { sleep } from './time.ts'
import { Webhooks } from './webhooks/handler.ts'

/** Seconds for the last settlement and for closing, after the grace period. */
const reserve = 5

const shortestSecret = 16

/** Keeps an instance of Supabase's alive until a promise has settled. */
const runtime = globalThis as { readonly EdgeRuntime?: { waitUntil(promise: Promise<unknown>): void } }

export type ServeOptions<Flows extends readonly AnyFlow[]> = WorkerOptions<Flows> & {
  /** What a request must carry as `Authorization: Bearer <secret>`: 16 characters or more. */
  readonly secret: string | undefined
  /**
   * After which the platform ends this instance, counted from this call. The worker stops claiming when `gracePeriod`
   * and 5 seconds are left of it. @default '150s'
   */
  readonly wallClock?: Duration
}

/** What a request is answered with, as JSON. */
export type ServeAnswer =
  /** 202: a worker runs now. */
  | { readonly status: 'started'; readonly workerId: string }
  /** 200: this instance has one already. */
  | { readonly status: 'running'; readonly workerId: string }
  /** 503: the platform is about to end this instance; the next one takes the next request. */
  | { readonly status: 'ending' }
  /** 503: the worker could not start. */
  | { readonly status: 'failed'; readonly message: string }
  /** 401, 405 */
  | { readonly status: 'refused'; readonly message: string }

/**
 * A request handler that hosts a worker where processes live for minutes, as Supabase Edge Functions do: a POST with the
 * secret starts a worker, which ends by itself before the platform would end it, and hands back what it has not finished.
 * With `webhooks`, it also completes waits by the URLs of `context.waitUrl`, which need no secret.
 *
 * @throws WorkerStartError if an option cannot work
 *
 * @example
 * Deno.serve(serveWorker({ flows, secret: Deno.env.get('PGFLOW_WORKER_SECRET'), url, secretKey }))
 */
export function serveWorker<const Flows extends readonly AnyFlow[]>(
  options: ServeOptions<Flows>,
): (request: Request) => Promise<Response> {
  const secret = checked(options)
  const instance = new Instance(options)
  return async (request) => {
    const answer = await instance.answerWebhook(request)
    if (answer !== undefined) return answer
    const [, given = ''] = /^bearer +(.+)$/i.exec(request.headers.get('authorization') ?? '') ?? []
    if (!(await sameSecret(given, secret))) {
      const headers = { 'www-authenticate': 'Bearer' }
      return reply(401, { status: 'refused', message: 'The secret is missing or wrong' }, headers)
    }
    if (request.method !== 'POST') {
      return reply(405, { status: 'refused', message: 'Only POST starts a worker' }, { allow: 'POST' })
    }
    return instance.wake()
  }
}

function checked({ secret = '', ...options }: ServeOptions<readonly AnyFlow[]>): string {
  checkOptions(options, ['secret', 'wallClock'])
  if (secret.length < shortestSecret) {
    throw new WorkerStartError(`secret is missing or short: give it ${shortestSecret} characters or more`)
  }
  const { wallClock, gracePeriod } = timesOf(options)
  if (!(wallClock > gracePeriod + reserve)) {
    throw new WorkerStartError(
      `wallClock is ${options.wallClock}: give it more than the gracePeriod and ${reserve} seconds`,
    )
  }
  return secret
}

/** In seconds. */
function timesOf({
  wallClock = '150s',
  gracePeriod = '25s',
}: {
  wallClock?: Duration
  gracePeriod?: Duration
}) {
  return {
    wallClock: secondsFrom('wallClock', wallClock),
    gracePeriod: secondsFrom('gracePeriod', gracePeriod),
  }
}

function reply(status: number, answer: ServeAnswer, headers: Record<string, string> = {}): Response {
  return Response.json(answer, { status, headers })
}

/** An instance of the platform's, which has a worker or not. */
class Instance {
  readonly #options: ServeOptions<readonly AnyFlow[]>
  readonly #unload = new AbortController()
  #birth = performance.now()
  #worker: Promise<Worker> | undefined
  readonly #webhooks: Webhooks | undefined

  constructor(options: ServeOptions<readonly AnyFlow[]>) {
    this.#options = options
    const { flows, webhooks, log } = options
    this.#webhooks = webhooks && new Webhooks(flows, webhooks, logFrom(log), () => openTransport(options))
    // How Supabase says that wall clock, CPU time or memory are used up.
    globalThis.addEventListener?.('beforeunload', () => this.#unload.abort())
  }

  async wake(): Promise<Response> {
    const isNew = this.#worker === undefined
    const seconds = this.#secondsLeft()
    if (seconds <= 0) return reply(503, { status: 'ending' }, { 'retry-after': '5' })
    this.#worker ??= this.#start(seconds)
    try {
      const worker = await this.#worker
      const { workerId } = worker
      // Whoever calls knows of tasks, and the worker may poll only once a second.
      if (!isNew) worker.wake()
      return isNew ? reply(202, { status: 'started', workerId }) : reply(200, { status: 'running', workerId })
    } catch (error) {
      return reply(503, { status: 'failed', message: (error as Error).message })
    }
  }

  /** A wait that is completed is followed by tasks: a worker is woken for them. */
  async answerWebhook(request: Request): Promise<Response | undefined> {
    const answer = await this.#webhooks?.answer(request)
    if (answer?.ok) runtime.EdgeRuntime?.waitUntil(this.wake())
    return answer
  }

  /** Until the worker must stop claiming. */
  #secondsLeft(): number {
    const { signal } = this.#options
    if (signal?.aborted || this.#unload.signal.aborted) return 0
    const { wallClock, gracePeriod } = timesOf(this.#options)
    const age = (performance.now() - this.#birth) / 1000
    if (age < wallClock) return wallClock - gracePeriod - reserve - age
    // Still here: the platform's limit is a longer one.
    this.#birth = performance.now()
    return wallClock - gracePeriod - reserve
  }

  #start(seconds: number): Promise<Worker> {
    const { secret: _, wallClock: __, signal, ...options } = this.#options
    const starting = startWorker(options)
    const hosted = starting
      .then((worker) => this.#host(worker, seconds, signal))
      // The request's answer has the reason.
      .catch(() => {})
      .finally(() => {
        this.#worker = undefined
      })
    runtime.EdgeRuntime?.waitUntil(hosted)
    return starting
  }

  async #host(worker: Worker, seconds: number, signal?: AbortSignal): Promise<void> {
    const unload = this.#unload.signal
    // It may also stop by itself, which its log says.
    await Promise.race([sleep(seconds, signal ? AbortSignal.any([unload, signal]) : unload), worker.stopped])
    const hurry = () => void worker.stop({ gracePeriod: 0 })
    unload.addEventListener('abort', hurry)
    if (unload.aborted) hurry()
    await worker.stop()
    unload.removeEventListener('abort', hurry)
  }
}
