import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type LocalSupabase, startLocalSupabase } from './stack.ts'

let stack: LocalSupabase

beforeAll(async () => {
  stack = await startLocalSupabase({ fsync: false })
})
afterAll(() => stack?.stop())

function connect(url = stack.poolerUrl) {
  return postgres(url, { max: 1, prepare: false, backoff: false, onnotice: () => {} })
}

describe('The pooler', () => {
  test('gives each transaction of a client another session', async () => {
    await using sql = disposable()
    const pids: number[] = []
    for (let n = 0; n < 4; n++) pids.push((await sql`select pg_backend_pid() as pid`)[0]!.pid)
    expect(pids.filter((pid, n) => pid === pids[n - 1])).toEqual([])
    await sql`set pgflow.test = 'mine'`
    const [row] = await sql`select current_setting('pgflow.test', true) as value`
    expect(row!.value ?? '').toBe('')
  })

  test('keeps a transaction on one', async () => {
    await using sql = disposable()
    const pids = await sql.begin(async (tx) => [
      (await tx`select pg_backend_pid() as pid`)[0]!.pid,
      (await tx`select pg_backend_pid() as pid`)[0]!.pid,
    ])
    expect(pids[0]).toBe(pids[1])
    await expect(sql.begin((tx) => tx`select 1 / 0`)).rejects.toMatchObject({ code: '22012' })
    expect(await sql`select 1 as one`).toMatchObject([{ one: 1 }])
  })

  test('does not know the prepared statements of another session', async () => {
    await using sql = disposable()
    await sql`prepare statement as select 1`
    await expect(sql.unsafe('execute statement')).rejects.toMatchObject({ code: '26000' })
  })

  test('asks for the password', async () => {
    const url = new URL(stack.poolerUrl)
    url.password = 'guess'
    const sql = connect(url.href)
    await expect(sql`select 1`).rejects.toMatchObject({ code: '28P01' })
    await sql.end()
  })

  test('serves many clients with few connections, and large values', async () => {
    const clients = Array.from({ length: 15 }, () => connect())
    const value = 'x'.repeat(300_000)
    const answers = await Promise.all(
      clients.map((sql) =>
        sql.begin((tx) => tx`select pg_backend_pid() as pid, ${value}::text as value, pg_sleep(0.05)`),
      ),
    )
    expect(answers.every(([row]) => row!.value === value)).toBe(true)
    expect(new Set(answers.map(([row]) => row!.pid)).size).toBeLessThanOrEqual(10)
    await Promise.all(clients.map((sql) => sql.end()))
  })

  test('goes on after Postgres was away', async () => {
    await using before = disposable()
    await before`select 1`
    await stack.postgres.kill()
    await expect(before`select 2`).rejects.toHaveProperty('code', expect.stringMatching(/^(08006|CONN)/))
    await stack.postgres.start()
    await using after = disposable()
    expect(await after`select 3 as three`).toMatchObject([{ three: 3 }])
  })
})

function disposable() {
  const sql = connect()
  return Object.assign(sql, { [Symbol.asyncDispose]: () => sql.end({ timeout: 1 }) })
}
