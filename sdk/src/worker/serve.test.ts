import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { Flow } from '../flow/index.ts'
import { Core } from './core.ts'
import { type ServeAnswer, serveWorker, startWorker } from './index.ts'
import { startTestDatabase, type TestDatabase } from './testing/database.ts'

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
})
afterAll(() => db[Symbol.asyncDispose]())

/** What the platform keeps an instance alive with. */
const waitUntil = vi.fn<(promise: Promise<unknown>) => void>()
const hosted = () => waitUntil.mock.lastCall![0]

beforeEach(() => {
  waitUntil.mockReset()
  vi.stubGlobal('EdgeRuntime', { waitUntil })
})
afterEach(() => {
  vi.unstubAllGlobals()
})

const secret = 'a secret of some length'
let flows = 0

/** A flow with one step, which says when it begins. */
function newFlow(work: (signal: AbortSignal) => unknown = () => 'done') {
  let begin: (signal: AbortSignal) => void
  const begun = new Promise<AbortSignal>((resolve) => {
    begin = resolve
  })
  const flow = new Flow<null>({ slug: `served_${++flows}`, maxAttempts: 1 }).step('work', (_, { signal }) => {
    begin(signal)
    return work(signal) as string
  })
  return { flow, begun }
}

const aborted = (signal: AbortSignal) => new Promise((resolve) => signal.addEventListener('abort', resolve))

function serve(options: object = {}) {
  const end = new AbortController()
  onTestFinished(() => end.abort())
  const { flow } = newFlow()
  const handle = serveWorker({ connection: db.url, flows: [flow], secret, signal: end.signal, ...options })
  return (request = wakeUp()) => answerOf(handle(request))
}

function wakeUp({ method = 'POST', authorization = `Bearer ${secret}` } = {}): Request {
  return new Request('http://localhost:9/flow-worker', { method, headers: { authorization } })
}

async function answerOf(answering: Promise<Response>) {
  const response = await answering
  const body = (await response.json()) as ServeAnswer
  return { status: response.status, headers: response.headers, body }
}

describe('A served worker', () => {
  it('starts at the first call, and is there at the next ones', async () => {
    const { flow } = newFlow()
    const wake = serve({ flows: [flow] })
    const [first, second] = await Promise.all([wake(), wake()])
    expect(first).toMatchObject({ status: 202, body: { status: 'started' } })
    expect(second).toMatchObject({ status: 200, body: { ...first.body, status: 'running' } })
    const run_id = await db.startRun(flow.slug, null)
    expect(await db.runEnded(run_id)).toMatchObject({ status: 'completed', output: { work: 'done' } })
    const look = vi.spyOn(Core.prototype, 'wake')
    onTestFinished(() => look.mockRestore())
    expect((await wake()).body).toEqual(second.body)
    expect(look, 'it looks for tasks at once').toHaveBeenCalled()
  })

  it('hands back what still runs before the platform ends it; the attempt does not count', async () => {
    const { flow, begun } = newFlow((signal) => aborted(signal))
    const wake = serve({ flows: [flow], wallClock: 7, gracePeriod: 1 })
    await wake()
    const run_id = await db.startRun(flow.slug, null)
    await aborted(await begun)
    expect(await wake()).toMatchObject({ status: 503, body: { status: 'ending' } })
    const again = new Flow<null>({ slug: flow.slug, maxAttempts: 1 }).step('work', () => 'by another')
    const other = await startWorker({ connection: db.url, flows: [again] })
    onTestFinished(() => other.stop())
    expect(await db.runEnded(run_id)).toMatchObject({ status: 'completed', output: { work: 'by another' } })
    expect(await db.tasksOf(run_id)).toMatchObject([{ attempts_count: 2 }])
  })

  it('starts again where the platform did not end the instance', async () => {
    const wake = serve({ wallClock: 5.5, gracePeriod: 0 })
    await wake()
    const now = performance.now()
    const clock = vi.spyOn(performance, 'now').mockReturnValue(now + 1000)
    onTestFinished(() => clock.mockRestore())
    expect((await wake()).body).toEqual({ status: 'ending' })
    await hosted()
    clock.mockReturnValue(now + 6000)
    expect(await wake()).toMatchObject({ status: 202, body: { status: 'started' } })
  })

  it('hands back at once when the platform unloads the instance', async () => {
    const events = new EventTarget()
    vi.stubGlobal('addEventListener', events.addEventListener.bind(events))
    const { flow, begun } = newFlow((signal) => aborted(signal))
    const wake = serve({ flows: [flow] })
    await wake()
    const run_id = await db.startRun(flow.slug, null)
    const signal = await begun
    events.dispatchEvent(new Event('beforeunload'))
    await hosted()
    expect(signal.aborted).toBe(true)
    expect((await wake()).body).toEqual({ status: 'ending' })
    expect(await db.tasksOf(run_id)).toMatchObject([{ status: 'queued' }])
  })

  it('keeps the instance alive until it has stopped', async () => {
    const end = new AbortController()
    const wake = serve({ signal: end.signal })
    await wake()
    await wake()
    expect(waitUntil).toHaveBeenCalledTimes(1)
    end.abort()
    await hosted()
    const [worker] = await db.sql`
      select stopped_at is not null as has_stopped from pgflow.workers order by started_at desc limit 1`
    expect(worker).toEqual({ has_stopped: true })
  })
})

describe('A call', () => {
  it.each([
    ['without a secret', { authorization: '' }],
    ['with another secret', { authorization: 'Bearer a secret of some lengtH' }],
    ['with a part of it', { authorization: `Bearer ${secret.slice(0, -1)}` }],
    ['with more than it', { authorization: `Bearer ${secret}!` }],
    ['with another scheme', { authorization: `Basic ${secret}` }],
    ['from this machine, whatever its method', { authorization: '', method: 'GET' }],
  ])('%s starts nothing', async (_, how) => {
    const wake = serve()
    const answer = await wake(wakeUp(how))
    expect(answer).toMatchObject({ status: 401, body: { status: 'refused' } })
    expect(answer.headers.get('www-authenticate')).toBe('Bearer')
  })

  it('that is no POST starts nothing', async () => {
    const wake = serve()
    const answer = await wake(wakeUp({ method: 'GET' }))
    expect(answer).toMatchObject({ status: 405, body: { status: 'refused' } })
    expect(answer.headers.get('allow')).toBe('POST')
  })

  it('that cannot start a worker says why, and the next one tries again', async () => {
    const wake = serve({ connection: 'postgresql://postgres:x@127.0.0.1:1/postgres' })
    for (let n = 0; n < 2; n++) {
      expect(await wake()).toMatchObject({
        status: 503,
        body: { status: 'failed', message: expect.stringContaining('ECONNREFUSED') },
      })
    }
  })
})

describe('serveWorker', () => {
  it.each([
    ['secret is missing or short', { secret: undefined }],
    ['secret is missing or short', { secret: 'short' }],
    ['wallClock is 30', { wallClock: 30 }],
    ['wallClock is NaN', { wallClock: Number.NaN }],
    ['The worker has no flows', { flows: [] as never }],
    ['connection is missing', { connection: '' }],
  ])('refuses options that cannot work: %s', (message, options) => {
    expect(() => serve(options)).toThrow(message)
  })
})
