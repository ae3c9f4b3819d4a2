import { connect, type Socket } from 'node:net'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres from 'postgres'
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from 'vitest'
import { RenewedPool } from './pool.ts'

let stack: LocalSupabase

beforeAll(async () => {
  stack = await startLocalSupabase({ fsync: false })
})
afterAll(() => stack.stop())

/** Connections whose sockets the test holds. */
function pool(): { pool: RenewedPool; sockets: Socket[]; onReplaced: () => void } {
  const sockets: Socket[] = []
  const { hostname, port } = new URL(stack.dbUrl)
  const socket = () => {
    const opened = connect(Number(port), hostname)
    sockets.push(opened)
    return opened
  }
  const onReplaced = vi.fn()
  const pool = new RenewedPool(() => postgres(stack.dbUrl, { max: 1, socket } as object), 60, onReplaced)
  onTestFinished(() => pool.close(1))
  return { pool, sockets, onReplaced }
}

/** What was asked for is written in the next turn of the event loop; this is still the same. */
async function beforeItIsSent(): Promise<void> {
  for (let n = 0; n < 10; n++) await null
}

it('a connection that is lost before a query is sent is replaced', async () => {
  const { pool: lossy, sockets, onReplaced } = pool()
  await lossy.use((sql) => sql`select 1`)
  const lost = lossy.use((sql) => sql`select 2`)
  await beforeItIsSent()
  sockets[0]?.emit('close', false)
  await expect(lost).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
  expect(await lossy.use((sql) => sql`select 3 as three`)).toEqual([{ three: 3 }])
  expect(onReplaced).toHaveBeenCalledTimes(1)
  sockets[0]?.destroy()
})

it('a query that the database refuses leaves the connection as it is', async () => {
  const { pool: sound, sockets, onReplaced } = pool()
  await expect(sound.use((sql) => sql`select 1 / 0`)).rejects.toMatchObject({ code: '22012' })
  expect(await sound.use((sql) => sql`select 1 as one`)).toEqual([{ one: 1 }])
  expect(sockets).toHaveLength(1)
  expect(onReplaced).not.toHaveBeenCalled()
})
