import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { Flow } from '../flow/index.ts'
import { connectionWords, firstAnswer } from './connection-problem.ts'
import { databaseTarget } from './database-url.ts'
import { startWorker } from './index.ts'
import { startTestDatabase, type TestDatabase, until } from './testing/database.ts'
import { type Tls, turnOnTls } from './testing/tls.ts'

let db: TestDatabase
let tls: Tls

beforeAll(async () => {
  db = await startTestDatabase()
  tls = await turnOnTls(db.adminUrl)
  await until(() =>
    encryption(`${db.url}?sslmode=require`)
      .then(([one]) => (one?.ssl ? [one] : []))
      .catch(() => []),
  )
})
afterAll(async () => {
  await tls[Symbol.asyncDispose]()
  await db[Symbol.asyncDispose]()
})

function open(url: string): Sql {
  const target = databaseTarget(url, 'connection')
  const sql = postgres(target.url, { ...target.options, max: 1, prepare: false, connect_timeout: 5 })
  onTestFinished(() => sql.end({ timeout: 0 }))
  return sql
}

async function encryption(url: string): Promise<{ ssl: boolean }[]> {
  const target = databaseTarget(url, 'connection')
  const sql = postgres(target.url, { ...target.options, max: 1, prepare: false })
  try {
    return await sql<{ ssl: boolean }[]>`select ssl from pg_stat_ssl where pid = pg_backend_pid()`
  } finally {
    await sql.end({ timeout: 0 })
  }
}

const problem = async (url: string) => {
  const sql = open(url)
  return firstAnswer(sql, sql`select 1`).then(
    () => 'none',
    (error: Error) => error.message,
  )
}

/** The URL with another part. */
function changed(part: 'hostname' | 'password' | 'pathname' | 'username', value: string, query = ''): string {
  const url = new URL(db.url)
  url[part] = value
  return `${url}${query}`
}

describe('TLS', () => {
  it('is used as the URL says', async () => {
    expect(await encryption(db.url)).toEqual([{ ssl: false }])
    for (const mode of ['prefer', 'require', `verify-full&sslrootcert=${tls.certificate}`]) {
      expect(await encryption(`${db.url}?sslmode=${mode}`)).toEqual([{ ssl: true }])
    }
    const named = changed('hostname', 'localhost', `?sslrootcert=${tls.certificate}`)
    expect(await encryption(named)).toEqual([{ ssl: true }])
  })

  it('is verified by the system too, which does not know the certificate', async () => {
    expect(await problem(`${db.url}?sslmode=verify-full`)).toMatch(
      /^the TLS certificate of 127\.0\.0\.1 cannot be verified \(.*sslmode=verify-full&sslrootcert=prod-ca-2021\.crt$/,
    )
  })

  it('a worker and its thread keep to it', async () => {
    const { pathname } = new URL(db.url)
    const admin = postgres(db.adminUrl, { max: 1 })
    onTestFinished(() => admin.end())
    const flow = new Flow({ slug: 'block', timeout: 60 }).step('block', () => {
      const end = performance.now() + 2_500
      while (performance.now() < end);
      return 1
    })
    const connection = `${db.url}?sslmode=verify-full&sslrootcert=${tls.certificate}`
    const worker = await startWorker({ connection, flows: [flow], lease: 1 })
    onTestFinished(() => worker.stop())
    const seen = until(
      () => admin<{ n: number }[]>`
        select s.n from (
          select count(*)::int as n, bool_and(ssl) as all_encrypted from pg_stat_activity a join pg_stat_ssl using (pid)
          where a.application_name = 'pgflow worker' and a.datname = ${pathname.slice(1)}
        ) s where s.n >= 3 and s.all_encrypted`,
    )
    const { status } = await db.runEnded(await db.startRun('block', null))
    expect(status).toBe('completed')
    await seen
  })
})

describe('firstAnswer says in words', () => {
  it('that the server has no TLS', async () => {
    const { port } = await serverThatAnswers(() => Buffer.from('N'))
    expect(await problem(`postgresql://me:secret@127.0.0.1:${port}/postgres?sslmode=require`)).toMatch(
      /^127\.0\.0\.1:\d+ does not support TLS\. Add \?sslmode=disable/,
    )
  })

  it.each([
    ['XX000', 'Tenant or user not found', 'The user of a pooler is me.<project ref>'],
    [
      '28P01',
      'password authentication failed for user "me"',
      'the password of the user "me" is wrong. Check',
    ],
    ['XX000', 'Max client connections reached', 'has no connection left (Max client'],
    ['57P03', 'the database system is starting up', 'is starting or stopping'],
  ])('what a pooler says: %s %s', async (code, message, words) => {
    const { port } = await serverThatAnswers(() => errorMessage(code, message))
    const said = await problem(`postgresql://me:secret@127.0.0.1:${port}/postgres`)
    expect(said).toContain(words)
    expect(said).not.toContain('secret')
  })

  it('that the password is wrong, or the database is missing', async () => {
    expect(await problem(changed('password', 'wr0ng'))).toMatch(
      /^the password of the user "postgres" is wrong\./,
    )
    expect(await problem(changed('pathname', '/none'))).toBe(
      'there is no database "none" at 127.0.0.1: that of a Supabase project is "postgres"',
    )
  })

  it.each(['ENETUNREACH', 'EHOSTUNREACH', 'ENOTFOUND', 'CONNECT_TIMEOUT'])(
    'that the direct host of a project has no IPv4 address: %s',
    async (code) => {
      const host = 'db.abcdefghijklmnopqrst.supabase.co'
      const target = { host, port: 5432, user: 'postgres', database: 'postgres', ssl: true }
      const words = await connectionWords(Object.assign(new Error(code), { code }), target)
      expect(words).toContain(
        'postgresql://postgres.abcdefghijklmnopqrst:password@….pooler.supabase.com:5432/postgres',
      )
      expect(words).toContain('Connect > Session pooler')
    },
  )

  it('through startWorker, with a project’s URL as well', async () => {
    const flows = [new Flow({ slug: 'none' }).step('a', () => 1)]
    await expect(startWorker({ connection: 'https://abc.supabase.co', flows })).rejects.toMatchObject({
      name: 'WorkerStartError',
      message: expect.stringMatching(
        /^connection is the URL of a project.* use url and secretKey for a project\.$/,
      ),
    })
    await expect(startWorker({ url: db.url, secretKey: 'x', flows })).rejects.toThrow('use connection.')
    await expect(startWorker({ connection: changed('password', 'wr0ng'), flows })).rejects.toThrow(
      /^The worker cannot reach the database: the password of the user "postgres" is wrong\./,
    )
  })
})

async function serverThatAnswers(answer: () => Buffer): Promise<{ port: number }> {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.write(answer()))
    // As Postgres closes a connection that goes on with TLS all the same.
    socket.on('data', (data) => data[0] === 22 && socket.destroy())
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  return server.address() as AddressInfo
}

function errorMessage(code: string, message: string): Buffer {
  const body = Buffer.from(`SFATAL\0VFATAL\0C${code}\0M${message}\0\0`)
  const head = Buffer.alloc(5)
  head.write('E')
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}
