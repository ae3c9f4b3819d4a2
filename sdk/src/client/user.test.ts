import { randomUUID } from 'node:crypto'
import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import { createClient as createClient91 } from 'supabase-js-2.91'
import { createClient as createClient109 } from 'supabase-js-2.109'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import WebSocket from 'ws'
import { fetchRun } from '../react/fetch-run.ts'
import { PgflowClient } from './client.ts'
import { ForbiddenError, NotFoundError } from './errors.ts'
import { Line, Recorder, type Review, Rig, ready } from './testing/rig.ts'
import type { RunEvent } from './types.ts'

let rig: Rig

beforeAll(async () => {
  rig = await Rig.start()
})
afterEach(() => vi.useRealTimers())
afterAll(() => rig.stop())

type Client = PgflowClient<{ review: typeof Review }>

/** A page: a client on which one user follows another. */
interface Page {
  readonly line: Line
  readonly supabase: SupabaseClient
  readonly client: Client
  /** Signs in a user who was not there before. */
  signIn(): Promise<unknown>
  signOut(): Promise<unknown>
}

const recorder = () => new Recorder<RunEvent<typeof Review>>()

const userChanged = (client: Client) =>
  new Promise<void>((resolve) => {
    const stop = client.lives.events.on('userChanged', () => {
      stop()
      resolve()
    })
  })

/** Counts how often the client has taken its user for another one. */
function countChanges(client: Client): { changes: number } {
  const counted = { changes: 0 }
  client.lives.events.on('userChanged', () => counted.changes++)
  return counted
}

/** Lets the server answer the next call of a function, and keeps the answer until it is released. */
function keepAnswer(line: Line, name: string): { answered: Promise<void>; release: () => void } {
  let answer = () => {}
  let release = () => {}
  const answered = new Promise<void>((resolve) => {
    answer = resolve
  })
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  line.broken = async (input, init) => {
    if (!String(input).endsWith(`/${name}`)) return fetch(input, init)
    line.broken = undefined
    // It cannot be aborted either.
    const response = await fetch(input, { ...init, signal: null })
    const body = await response.text()
    answer()
    await released
    return new Response(body, response)
  }
  return { answered, release }
}

/** Lets all users see all runs, as a team's own rule may. */
async function whileAllMaySee(run: () => Promise<void>): Promise<void> {
  const [before] = await rig.sql`
    select pg_get_functiondef('pgflow.can_access_run'::regproc) as definition
  `
  await rig.sql.unsafe(
    before!.definition.replace(
      /\$function\$[\s\S]*\$function\$/,
      '$function$ begin return true; end $function$',
    ),
  )
  try {
    await run()
  } finally {
    await rig.sql.unsafe(before!.definition)
  }
}

/** A user that supabase-js signs in. */
async function signedIn(create?: typeof createClient): Promise<Page> {
  const line = new Line()
  const auth = { persistSession: false, autoRefreshToken: false }
  const supabase = rig.client({ auth, global: { fetch: line.fetch } }, create)
  await supabase.auth.signInAnonymously()
  return {
    line,
    supabase,
    client: new PgflowClient(supabase),
    signIn: () => supabase.auth.signInAnonymously(),
    signOut: () => supabase.auth.signOut(),
  }
}

/** A user of whom the token alone tells. */
async function thirdParty(create?: typeof createClient): Promise<Page & { token: string | null }> {
  const line = new Line()
  const page = { token: (await rig.stack.signToken({ sub: randomUUID() })) as string | null }
  const supabase = rig.client({ accessToken: async () => page.token, global: { fetch: line.fetch } }, create)
  const client: Client = new PgflowClient(supabase)
  const next = (token: string | null) => {
    page.token = token
    return client.checkUser()
  }
  return Object.assign(page, {
    line,
    supabase,
    client,
    signIn: async () => next(await rig.stack.signToken({ sub: randomUUID() })),
    signOut: () => next(null),
  })
}

const start = (client: Client) => client.startFlow('review', { text: 'of the former user' })

const kinds = [
  ['supabase-js signs in', signedIn],
  ['the token alone names', thirdParty],
] as const

const versions = [
  ['2.91', createClient91 as unknown as typeof createClient],
  ['2.109', createClient109 as unknown as typeof createClient],
  ['of today', createClient],
] as const

const cases = kinds.flatMap(([kind, open]) =>
  versions.map(([version, create]) => [kind, version, () => open(create)] as const),
)

describe.each(cases)('when another user comes, whom %s (supabase-js %s)', (_kind, _version, open) => {
  it('a finished run is not shown any more, and may not be read', async () => {
    const { client, signIn } = await open()
    const run = await start(client)
    const done = run.waitForCompletion()
    await rig.complete(run.runId)
    await done
    expect(client.lives.get(run.runId)).toBeDefined()

    await signIn()

    expect(client.lives.get(run.runId)).toBeUndefined()
    expect(JSON.stringify(run.snapshot)).not.toContain('of the former user')
    expect(run).toMatchObject({ input: null, output: null, error: null, status: 'started' })
    expect(run.snapshot).toMatchObject({ owner_id: null, metadata: null, seq: 0 })
    expect(run.step('left')).toMatchObject({ slug: 'left', output: null, status: 'created' })
    await expect(run.waitForCompletion()).rejects.toThrow(NotFoundError)
    await expect(run.events().next()).rejects.toThrow(NotFoundError)
    await expect(client.getRun(run.runId)).rejects.toThrow(NotFoundError)
  })

  it('waits and iterators are refused, listeners are told nothing, and the channel is left', async () => {
    const { client, supabase, signIn } = await open()
    const run = await start(client)
    const all = recorder()
    const channelReady = ready(supabase)
    run.on('*', all.take)
    const waits = Promise.allSettled([run.waitForCompletion(), run.step('left').waitForCompletion()])
    const iterated = Promise.allSettled([run.events({ after: 2 }).next()])
    await channelReady
    await all.first('step:started')

    await signIn()

    const refused = { status: 'rejected', reason: expect.any(NotFoundError) }
    expect(await waits).toEqual([refused, refused])
    expect(await iterated).toEqual([refused])
    await run.close()
    expect(supabase.getChannels().length).toBe(0)
    await rig.complete(run.runId)
    expect(all.types).toEqual(['run:started', 'step:started'])
  })

  it('an answer for the former user that comes late is not taken', async () => {
    const { client, line, signIn } = await open()
    const run = await start(client)
    for (const [name, request] of [
      ['get_run', () => client.getRun(run.runId)],
      ['list_runs', () => client.listRuns()],
      ['start_flow', () => start(client)],
      ['cancel_run', () => run.cancel()],
    ] as const) {
      const { answered, release } = keepAnswer(line, name)
      const settled = Promise.allSettled([request()])
      await answered
      await signIn()
      release()
      expect([name, await settled]).toEqual([
        name,
        [{ status: 'rejected', reason: expect.objectContaining({ code: 'user_changed' }) }],
      ])
      expect(client.lives.get(run.runId)).toBeUndefined()
    }
    expect((await client.listRuns()).runs).toEqual([])
  })

  it('a log of the former user that comes late is told to nobody', async () => {
    const { client, line, signIn } = await open()
    const run = await start(client)
    await rig.complete(run.runId)
    const { answered, release } = keepAnswer(line, 'sync')
    const all = recorder()
    run.on('*', all.take)
    const done = Promise.allSettled([run.waitForCompletion()])
    await answered
    await signIn()
    release()
    expect(await done).toEqual([{ status: 'rejected', reason: expect.any(NotFoundError) }])
    expect(all.events).toEqual([])
    expect(run.output).toBeNull()
  })

  it('a run that is fetched by several at once is not shared with the new user', async () => {
    const { client, line, signIn } = await open()
    const run = await start(client)
    const { answered, release } = keepAnswer(line, 'get_run')
    const former = Promise.allSettled([fetchRun(client.lives, run.runId)])
    await answered
    await signIn()
    const latter = Promise.allSettled([fetchRun(client.lives, run.runId)])
    release()
    expect(await former).toMatchObject([{ reason: { code: 'user_changed' } }])
    expect(await latter).toMatchObject([{ reason: expect.any(NotFoundError) }])
  })

  it('while the socket is being connected again, nothing of the former user comes back', async () => {
    const { client, supabase, signIn } = await open()
    const run = await start(client)
    const all = recorder()
    const channelReady = ready(supabase)
    run.on('*', all.take)
    const done = Promise.allSettled([run.waitForCompletion()])
    await channelReady
    rig.stack.realtime.closeSockets()
    await Promise.all([signIn(), rig.complete(run.runId)])
    expect(await done).toEqual([{ status: 'rejected', reason: expect.any(NotFoundError) }])
    const { length } = all.events
    await run.close()
    expect(run.output).toBeNull()
    expect(all.events).toHaveLength(length)
  })

  it('the new user starts and follows runs of their own', async () => {
    const { client, supabase, signIn } = await open()
    const former = await start(client)
    const formerReady = ready(supabase)
    former.on('*', () => undefined)
    await formerReady
    await signIn()
    const run = await client.startFlow('review', { text: 'of the new user' })
    const done = run.waitForCompletion()
    await rig.complete(run.runId)
    expect(await done).toEqual({ report: true })
    expect((await client.listRuns()).runs.map(({ run_id }) => run_id)).toEqual([run.runId])
  })

  it('whoever may see the run as well sees it, and listeners are told nothing twice', async () => {
    const { client, signIn } = await open()
    const run = await start(client)
    const all = recorder()
    run.on('*', all.take)
    const done = run.waitForCompletion()
    await rig.settle(run.runId, 'read', { output: 'some text' })
    await all.first('step:started', 'right')
    await whileAllMaySee(async () => {
      await signIn()
      await rig.complete(run.runId, 1)
      expect(await done).toEqual({ report: true })
      expect(all.events).toEqual(await rig.log(run.runId))
      expect(run.snapshot.owner_id).not.toBeNull()
      expect(client.lives.get(run.runId)).toBeDefined()
    })
  })

  it('a run that was started without a user is read again when one signs in', async () => {
    const { client, signIn, signOut } = await open()
    vi.useFakeTimers({ toFake: ['Date'] })
    await signOut()
    vi.setSystemTime(Date.now() + 10_000)
    await expect(start(client)).rejects.toThrow(ForbiddenError)
    const changed = userChanged(client)
    vi.useRealTimers()
    await signIn()
    await changed
    expect(await start(client)).toMatchObject({ status: 'started' })
  })
})

describe.each(versions)('while the user is the same (supabase-js %s)', (_, create) => {
  it('a renewed token changes nothing', async () => {
    const { client, supabase, line } = await signedIn(create)
    const counted = countChanges(client)
    const run = await start(client)
    const all = recorder()
    run.on('*', all.take)
    const done = run.waitForCompletion()
    const { answered, release } = keepAnswer(line, 'get_run')
    const found = client.getRun(run.runId)
    await answered
    const events: string[] = []
    const { data } = supabase.auth.onAuthStateChange((event) => void events.push(event))
    await supabase.auth.refreshSession()
    release()
    expect(await found).toMatchObject({ runId: run.runId })
    await rig.complete(run.runId)
    expect(await done).toEqual({ report: true })
    expect(all.events).toEqual(await rig.log(run.runId))
    expect(events).toContain('TOKEN_REFRESHED')
    expect(counted.changes).toBe(0)
    data.subscription.unsubscribe()
  })

  it('the session that supabase-js finds at first changes nothing', async () => {
    const former = await signedIn(create)
    const { data } = await former.supabase.auth.getSession()
    const items = new Map([['kept', JSON.stringify(data.session)]])
    const storage = {
      // As slow as those of phones.
      getItem: async (key: string) => items.get(key) ?? null,
      setItem: async (key: string, value: string) => void items.set(key, value),
      removeItem: async (key: string) => void items.delete(key),
    }
    const supabase = rig.client({ auth: { storage, storageKey: 'kept', autoRefreshToken: false } }, create)
    const client: Client = new PgflowClient(supabase)
    const counted = countChanges(client)
    const initial = new Promise<void>((resolve) => {
      supabase.auth.onAuthStateChange((event) => event === 'INITIAL_SESSION' && resolve())
    })
    const run = await start(client)
    await initial
    expect(run.snapshot.owner_id).toBe(data.session!.user.id)
    expect(client.lives.get(run.runId)).toBeDefined()
    expect(counted.changes).toBe(0)
  })
})

describe('a run that the new user may see', () => {
  it('is followed by its channel again, also if somebody else has read it first', async () => {
    const { client, supabase, line, signIn } = await signedIn()
    const run = await start(client)
    const firstReady = ready(supabase)
    run.on('*', () => undefined)
    await firstReady
    await whileAllMaySee(async () => {
      const channelReady = ready(supabase)
      const failed = new Promise<void>((resolve) => {
        line.broken = async (input, init) => {
          if (!String(input).endsWith('/get_run')) return fetch(input, init)
          line.broken = undefined
          resolve()
          throw new TypeError('fetch failed')
        }
      })
      await signIn()
      await failed
      await client.getRun(run.runId)
      await channelReady
      await run.close()
    })
  })
})

describe('a wait', () => {
  it('goes on when the same user signs in again', async () => {
    const { client, supabase } = await signedIn()
    const { data } = await supabase.auth.getSession()
    const run = await start(client)
    const all = recorder()
    run.on('*', all.take)
    const done = run.waitForCompletion()
    await rig.settle(run.runId, 'read', { output: 'some text' })
    await all.first('step:started', 'right')
    await supabase.auth.signOut()
    expect(run.snapshot).toMatchObject({ input: null, owner_id: null })
    await rig.complete(run.runId, 1)
    await supabase.auth.setSession(data.session!)
    expect(await done).toEqual({ report: true })
    expect(all.events).toEqual(await rig.log(run.runId))
    expect(run.input).toEqual({ text: 'of the former user' })
  })

  it('is not rejected when there is no token for a moment', async () => {
    const page = await thirdParty()
    const { client, line, token } = page
    const counted = countChanges(client)
    const run = await start(client)
    page.token = null
    const missing = new Promise<object[]>((resolve) => {
      line.broken = async (input, init) => {
        const response = await fetch(input, init)
        page.token = token
        line.broken = undefined
        resolve((await response.clone().json()).missing)
        return response
      }
    })
    const all = recorder()
    run.on('*', all.take)
    const done = run.waitForCompletion()
    expect(await missing).toMatchObject([{ run_id: run.runId }])
    await all.first('step:started')
    await rig.complete(run.runId)
    expect(await done).toEqual({ report: true })
    expect(all.events).toEqual(await rig.log(run.runId))
    expect(counted.changes).toBe(0)
  })

  it('is rejected for good when there is a token and the run is gone', async () => {
    const { client } = await thirdParty()
    const run = await start(client)
    await rig.sql`delete from pgflow.runs where run_id = ${run.runId}`
    await expect(run.waitForCompletion()).rejects.toThrow(NotFoundError)
  })
})

describe('third-party auth', () => {
  it('is noticed to have another user at the next request', async () => {
    const page = await thirdParty()
    const run = await start(page.client)
    page.token = await rig.stack.signToken({ sub: randomUUID() })
    expect((await page.client.listRuns()).runs).toEqual([])
    expect(run.input).toBeNull()
  })

  it('is noticed to have another user before an answer is taken', async () => {
    const page = await thirdParty()
    const run = await start(page.client)
    const { answered, release } = keepAnswer(page.line, 'get_run')
    const found = Promise.allSettled([page.client.getRun(run.runId)])
    await answered
    page.token = await rig.stack.signToken({ sub: randomUUID() })
    release()
    expect(await found).toMatchObject([{ reason: { code: 'user_changed' } }])
    expect(run.input).toBeNull()
  })

  it('without a token for ten seconds counts as signed out', async () => {
    const page = await thirdParty()
    const run = await start(page.client)
    vi.useFakeTimers({ toFake: ['Date'] })
    await page.signOut()
    expect(run.input).toEqual({ text: 'of the former user' })
    vi.setSystemTime(Date.now() + 10_000)
    await page.signOut()
    expect(run.input).toBeNull()
  })
})

describe('a client with a secret key', () => {
  it('has no user who could change', async () => {
    const realtime = { transport: WebSocket as never }
    const supabase = createClient(rig.stack.url, rig.stack.secretKey, { realtime })
    const client: Client = new PgflowClient(supabase)
    const counted = countChanges(client)
    const run = await client.startFlow('review', { text: 'of nobody' })
    expect(await client.getRun(run.runId)).toMatchObject({ input: { text: 'of nobody' } })
    await rig.sql`delete from pgflow.runs where run_id = ${run.runId}`
    await expect(run.waitForCompletion()).rejects.toThrow(NotFoundError)
    expect(counted.changes).toBe(0)
    await supabase.removeAllChannels()
  })
})
