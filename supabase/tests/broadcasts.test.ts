import { randomUUID } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import { createClient, type RealtimeChannel, type SupabaseClient } from '@supabase/supabase-js'
import postgres, { type Sql } from 'postgres'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import WebSocket from 'ws'

const owner = '11111111-1111-4111-8111-111111111111'
const stranger = '22222222-2222-4222-8222-222222222222'

interface Message {
  runs: {
    run_id: string
    flow_slug: string
    events: { seq: number; type: string; step_slug: string | null }[]
  }[]
}

let stack: LocalSupabase
let sql: Sql
const clients: SupabaseClient[] = []

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: false,
  })
  sql = postgres(stack.dbUrl, { max: 4, onnotice: () => undefined })
  await sql`select pgflow.create_flow('chain', start_role => 'authenticated')`
  await sql`select pgflow.add_step('chain', 'first')`
  await sql`select pgflow.add_step('chain', 'second', array['first'])`
})

afterEach(async () => {
  for (const client of clients.splice(0)) await client.removeAllChannels()
})

afterAll(async () => {
  await sql?.end()
  await stack?.stop()
})

/** supabase-js as a signed-in user has it. */
function signedInAs(sub: string): SupabaseClient {
  const client = createClient(stack.url, stack.publishableKey, {
    accessToken: () => stack.signToken({ sub }),
    realtime: { transport: WebSocket as never },
  })
  clients.push(client)
  return client
}

async function startRun(watches: boolean): Promise<string> {
  const args = { flow_slug: 'chain', input: {}, ...(watches && { watch: randomUUID() }) }
  const { data, error } = await signedInAs(owner).schema('pgflow_public').rpc('start_flow', args)
  expect(error).toBeNull()
  return data.run_id
}

/** Listens to the private channel of a user; resolves when its broadcasts flow, or with the reason why not. */
async function join(
  client: SupabaseClient,
  userId: string,
  receive: (message: Message) => void,
): Promise<string> {
  await client.realtime.setAuth()
  const channel: RealtimeChannel = client.channel(`pgflow:user:${userId}`, {
    config: { private: true, broadcast: { replication_ready: true } as never },
  })
  return new Promise((resolve) => {
    channel
      .on('broadcast', { event: 'run_events' }, ({ payload }) => receive(payload as Message))
      .on('system', {}, ({ status }) => status === 'ok' && resolve('ready'))
      .subscribe((_status, error) => error && resolve(error.message))
  })
}

/** The messages of a run, and a way to wait for the next one. */
function inbox() {
  const messages: Message[] = []
  const arrivals = new EventEmitter()
  return {
    messages,
    receive(message: Message) {
      messages.push(message)
      arrivals.emit('message')
    },
    async until(count: number): Promise<Message[]> {
      while (messages.length < count) await once(arrivals, 'message')
      return messages
    },
  }
}

const rowsOf = (runId: string) => sql`
  select from realtime.messages
  where topic = ${`pgflow:user:${owner}`} and payload @> ${sql.json({ runs: [{ run_id: runId }] })}
`

describe('the broadcasts of a watched run', () => {
  test('carry a transition made by hand-written SQL like any other', async () => {
    const runId = await startRun(true)
    const { until, receive } = inbox()
    expect(await join(signedInAs(owner), owner, receive)).toBe('ready')

    await sql`update pgflow.step_states set progress = '{"pages": 3}' where run_id = ${runId} and step_slug = 'first'`
    await sql`
      update pgflow.step_states set status = 'skipped', skipped_at = now(), skip_reason = 'by hand'
      where run_id = ${runId} and step_slug = 'second'`

    expect(await until(2)).toEqual([
      {
        runs: [
          {
            run_id: runId,
            flow_slug: 'chain',
            events: [
              expect.objectContaining({
                seq: 3,
                type: 'step:progress',
                step_slug: 'first',
                progress: { pages: 3 },
              }),
            ],
          },
        ],
      },
      {
        runs: [
          {
            run_id: runId,
            flow_slug: 'chain',
            events: [
              expect.objectContaining({
                seq: 4,
                type: 'step:skipped',
                step_slug: 'second',
                skip_reason: 'by hand',
              }),
            ],
          },
        ],
      },
    ])
  })

  test('are one message for each statement, in the order of the log', async () => {
    const runId = await startRun(true)
    const { until, receive } = inbox()
    await join(signedInAs(owner), owner, receive)

    await sql`select pgflow.complete_task(${runId}, 'first', 0, '"done"')`
    await sql`select pgflow.complete_task(${runId}, 'second', 0, 'null')`

    const events = (await until(3)).map((message) =>
      message.runs[0]?.events.map(({ seq, type }) => `${seq} ${type}`),
    )
    expect(events).toEqual([
      ['3 step:completed', '4 step:started'],
      ['5 step:completed'],
      ['6 run:completed'],
    ])
  })

  test('say nothing of a transaction that was rolled back', async () => {
    const runId = await startRun(true)
    const { until, receive } = inbox()
    await join(signedInAs(owner), owner, receive)

    const rollback = sql.begin(async (tx) => {
      await tx`select pgflow.complete_task(${runId}, 'first', 0, '"never"')`
      throw new Error('rolled back')
    })
    await expect(rollback).rejects.toThrow('rolled back')
    await sql`select pgflow.complete_task(${runId}, 'first', 0, '"done"')`

    const [message] = await until(1)
    expect(message?.runs[0]?.events).toEqual([
      expect.objectContaining({ seq: 3, type: 'step:completed', output: 'done' }),
      expect.objectContaining({ seq: 4, type: 'step:started' }),
    ])
    expect(await rowsOf(runId)).toHaveLength(1)
  })

  test('reach nobody but the user', async () => {
    await startRun(true)
    const refusal = await join(signedInAs(stranger), owner, () => expect.unreachable())
    expect(refusal).toBe(
      `Unauthorized: You do not have permissions to read from this Channel topic: pgflow:user:${owner}`,
    )
  })
})

test('an unwatched run puts no row into realtime.messages, and its log is complete', async () => {
  const runId = await startRun(false)
  await sql`select pgflow.complete_task(${runId}, 'first', 0, '1')`
  await sql`select pgflow.complete_task(${runId}, 'second', 0, '2')`
  expect(await rowsOf(runId)).toHaveLength(0)
  const log = await sql<
    { seq: number }[]
  >`select seq::int from pgflow.run_events where run_id = ${runId} order by seq`
  expect(log.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6])
})

test('a watch that begins while somebody writes to the run waits for them: nothing falls between', async () => {
  const runId = await startRun(false)
  const reading = signedInAs(owner).schema('pgflow_public')
  let read: PromiseLike<{ data: { seq: number } | null }> | undefined

  await sql.begin(async (tx) => {
    await tx`select pgflow.complete_task(${runId}, 'first', 0, '1')`
    read = reading.rpc('get_run', { run_id: runId, watch: randomUUID() }).then((answer) => answer)
    await untilSomebodyWaits()
  })

  expect((await read)?.data?.seq).toBe(4)
  await sql`select pgflow.complete_task(${runId}, 'second', 0, '2')`
  expect(await rowsOf(runId)).toHaveLength(2)
})

async function untilSomebodyWaits(): Promise<void> {
  for (;;) {
    const waiting = await sql`select from pg_locks where not granted`
    if (waiting.length > 0) return
    await setImmediate()
  }
}
