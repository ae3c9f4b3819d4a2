import { sign } from '@octokit/webhooks-methods'
import { Webhook } from 'standardwebhooks'
import Stripe from 'stripe'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Flow } from '../../flow/index.ts'
import { serveWorker, startWorker, type Worker, webhookHandler, webhooksFrom } from '../index.ts'
import { startTestDatabase, type TestDatabase, until } from '../testing/database.ts'
import { isSignedBy } from './signature.ts'

const Order = new Flow<{ of: string }>({ slug: 'order' })
  .step('url', async ({ run }, { waitUrl }) => waitUrl(run.of))
  .wait({ slug: 'plain', dependsOn: ['url'], webhook: true })
  .wait({ slug: 'stripe', dependsOn: ['url'], webhook: 'stripe' })
  .wait({ slug: 'github', dependsOn: ['url'], webhook: 'github' })
  .wait({ slug: 'slack', dependsOn: ['url'], webhook: 'slack' })
  .wait({ slug: 'standard', dependsOn: ['url'], webhook: 'standard' })
  .wait({ slug: 'by_hand', dependsOn: ['url'] })

const secrets = {
  stripe: 'whsec_of_stripe',
  github: 'a secret of github',
  slack: '8f742231b10e8888abcd99yyyzzz85a5',
  standard: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
}
const webhooks = { url: 'http://hooks.test/flow-worker/', key: 'a key of some length', secrets }

let db: TestDatabase
let worker: Worker
let handle: (request: Request) => Promise<Response>

beforeAll(async () => {
  db = await startTestDatabase()
  worker = await startWorker({ connection: db.url, flows: [Order], webhooks, log: false })
  handle = webhookHandler({ sql: db.sql, flows: [Order], webhooks, log: false })
})
afterAll(async () => {
  await worker.stop()
  await db[Symbol.asyncDispose]()
})

/** A run whose first step has the URL of one of its waits. */
async function orderWith(of: string) {
  const run_id = await db.startRun('order', { of })
  const step = async (slug: string) => {
    const [state] = await db.sql<{ status: string; output: unknown }[]>`
      select status, output from pgflow.step_states where run_id = ${run_id} and step_slug = ${slug}`
    return state!
  }
  await until(async () => [await step('url')].filter(({ status }) => status === 'completed'))
  return { run_id, url: (await step('url')).output as string, step }
}

function post(url: string, body: string, headers: Record<string, string> = {}): Request {
  const type = { 'content-type': 'application/json' }
  return new Request(url, { method: 'POST', body, headers: { ...type, ...headers } })
}

const now = () => Math.floor(Date.now() / 1000)

/** The headers with which a provider signs, made by its own library where there is one. */
const signers: Record<string, (body: string, at?: number) => Promise<Record<string, string>>> = {
  async stripe(body, at = now()) {
    const { webhooks: library } = new Stripe('sk_test_x')
    const header = library.generateTestHeaderString({ payload: body, secret: secrets.stripe, timestamp: at })
    return { 'stripe-signature': header }
  },
  async github(body) {
    return { 'x-hub-signature-256': await sign(secrets.github, body) }
  },
  async standard(body, at = now()) {
    const signature = new Webhook(secrets.standard).sign('msg_1', new Date(at * 1000), body)
    return {
      'webhook-id': 'msg_1',
      'webhook-timestamp': `${at}`,
      'webhook-signature': `v1,AAAA ${signature}`,
    }
  },
}

describe('a webhook', () => {
  it('completes its wait with what was sent, once', async () => {
    const { url, step } = await orderWith('plain')
    expect(url).toMatch(/^http:\/\/hooks\.test\/flow-worker\/waits\/order\/[\da-f-]{36}\/plain\/[\w-]{43}$/)
    const first = await handle(post(url, '{"paid":true}'))
    expect([first.status, await first.json()]).toEqual([200, { status: 'completed' }])
    expect(await step('plain')).toEqual({ status: 'completed', output: { paid: true } })
    expect((await handle(post(url, '{"paid":true}'))).status).toBe(200) // a replay
    expect((await handle(post(url, '{"paid":false}'))).status).toBe(409)
    expect(await step('plain')).toEqual({ status: 'completed', output: { paid: true } })
  })

  it.each([
    ['', 'application/json', null],
    ['a=1&b=x+y', 'application/x-www-form-urlencoded', { a: '1', b: 'x y' }],
    ['payload=%7B%22ok%22%3Atrue%7D', 'application/x-www-form-urlencoded; charset=utf-8', { ok: true }],
    ['"text"', 'text/plain', 'text'],
  ])('takes the body %s (%s)', async (body, type, output) => {
    const { url, step } = await orderWith('plain')
    expect((await handle(post(url, body, { 'content-type': type }))).status).toBe(200)
    expect((await step('plain')).output).toEqual(output)
  })

  it('answers alike for what is unknown, foreign or wrong', async () => {
    const { url, run_id } = await orderWith('plain')
    const [other, deleted] = [await orderWith('plain'), await orderWith('plain')]
    await db.sql`select pgflow.cancel_run(${deleted.run_id})`
    await db.sql`delete from pgflow.runs where run_id = ${deleted.run_id}`
    const wrong = [
      url.slice(0, -3),
      url.replace(/.$/, (last) => (last === 'A' ? 'E' : 'A')),
      url.replace(run_id, other.run_id), // a run that exists
      url.replace(run_id, '00000000-0000-7000-8000-000000000000'), // one that does not
      url.replace('/plain/', '/by_hand/'),
      url.replace('/order/', '/unknown/'),
      deleted.url,
      'http://hooks.test/flow-worker/waits/order',
      'http://hooks.test/',
    ]
    const answers = await Promise.all(
      wrong.map(async (each) => {
        const response = await handle(post(each, '1'))
        const headers: string[] = []
        response.headers.forEach((_, name) => void headers.push(name))
        return `${response.status} ${await response.text()} ${headers}`
      }),
    )
    expect(new Set(answers)).toEqual(
      new Set(['404 {"status":"refused","message":"There is no such wait"} content-type']),
    )
  })

  it('refuses what cannot complete it, and loses nothing', async () => {
    const { url, step, run_id } = await orderWith('plain')
    expect((await handle(new Request(url))).status).toBe(405)
    expect((await handle(post(url, '{'))).status).toBe(400)
    expect((await handle(post(url, '"\\u0000"'))).status).toBe(400)
    expect((await handle(post(url, JSON.stringify('x'.repeat(1_048_576))))).status).toBe(413)
    expect(await step('plain')).toEqual({ status: 'started', output: null })
    await db.sql`select pgflow.cancel_run(${run_id})`
    expect((await handle(post(url, '1'))).status).toBe(409) // too late
  })

  it('has a URL of waits with webhooks alone', async () => {
    const run_id = await db.startRun('order', { of: 'by_hand' })
    const { error } = await until(
      () => db.sql<{ error: string }[]>`
        select error from pgflow.step_states
        where run_id = ${run_id} and step_slug = 'url' and error is not null`,
    )
    expect(error).toMatch(/"by_hand" of the flow "order" is no wait with webhook/)
    await db.sql`select pgflow.cancel_run(${run_id})`
  })
})

describe.each(Object.keys(signers))('a webhook of %s', (provider) => {
  const signed = signers[provider]!
  const body = '{"id":"evt_1","text":"ü \\u00e9"}'

  it('is completed by what the provider has signed', async () => {
    const { url, step } = await orderWith(provider)
    expect((await handle(post(url, body))).status).toBe(401)
    expect((await handle(post(url, `${body} `, await signed(body)))).status).toBe(401) // the raw body counts
    if (provider !== 'github') {
      expect((await handle(post(url, body, await signed(body, now() - 400)))).status).toBe(401)
      expect((await handle(post(url, body, await signed(body, now() + 400)))).status).toBe(401)
    }
    expect((await step(provider)).status).toBe('started')
    expect((await handle(post(url, body, await signed(body)))).status).toBe(200)
    expect((await step(provider)).output).toEqual(JSON.parse(body))
  })

  it('is not answered without the secret', async () => {
    const { url } = await orderWith(provider)
    const unset = webhookHandler({
      sql: db.sql,
      flows: [Order],
      webhooks: { ...webhooks, secrets: {} },
      log: false,
    })
    expect((await unset(post(url, body, await signed(body)))).status).toBe(503)
  })
})

describe('the examples in the documentation of providers', () => {
  it.each([
    [
      'github',
      { 'x-hub-signature-256': 'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17' },
      'Hello, World!',
      "It's a Secret to Everybody",
      0,
    ],
    [
      'slack',
      {
        'x-slack-request-timestamp': '1531420618',
        'x-slack-signature': 'v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503',
      },
      'token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c',
      secrets.slack,
      1_531_420_700,
    ],
  ] as const)('%s', async (provider, given, body, secret, at) => {
    const headers = new Headers(given)
    expect(await isSignedBy(provider, { headers, body, secret, now: at })).toBe(true)
    expect(await isSignedBy(provider, { headers, body: `${body}x`, secret, now: at })).toBe(false)
    expect(await isSignedBy(provider, { headers, body, secret: `${secret}x`, now: at })).toBe(false)
    expect(await isSignedBy(provider, { headers: new Headers(), body, secret, now: at })).toBe(false)
  })
})

it('serveWorker answers webhooks without its secret, and others only with it', async () => {
  const end = new AbortController()
  const secret = 'a secret of some length'
  const serve = serveWorker({
    ...{ sql: db.sql, flows: [Order], secret, webhooks },
    log: false,
    signal: end.signal,
  })
  const { url, step } = await orderWith('plain')
  expect((await serve(post(url, '7'))).status).toBe(200)
  expect((await step('plain')).output).toBe(7)
  expect((await serve(post(url.slice(0, -1), '7'))).status).toBe(404)
  expect((await serve(post('http://hooks.test/flow-worker', '7'))).status).toBe(401)
  end.abort()
})

it('the environment says how webhooks arrive', () => {
  const key = 'a key of some length'
  expect(webhooksFrom({ SUPABASE_URL: 'https://x.supabase.co' })).toBeUndefined()
  expect(
    webhooksFrom({
      SUPABASE_URL: 'https://x.supabase.co',
      PGFLOW_WEBHOOK_KEY: key,
      SLACK_SIGNING_SECRET: 's',
    }),
  ).toMatchObject({ key, url: 'https://x.supabase.co/functions/v1/flow-worker', secrets: { slack: 's' } })
  const settings = { key: 'short', url: 'https://x.supabase.co' }
  expect(() => webhookHandler({ sql: db.sql, flows: [Order], webhooks: settings })).toThrow(
    /webhooks\.key is missing or short/,
  )
})
