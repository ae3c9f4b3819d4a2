import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chown, mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { ClientConfig } from 'pg'
import { type Account, assertReachable, postgresAccount } from './account.ts'
import { copyBinaries } from './binaries.ts'
import { LocalSupabaseError } from './errors.ts'
import { Guardian } from './guardian.ts'
import { HOST, PortBusyError, withPort } from './ports.ts'

/** The cluster's superuser, as on the platform. */
export const ADMIN = 'supabase_admin'

const SETTINGS = {
  listen_addresses: HOST,
  unix_socket_directories: '',
  wal_level: 'logical',
  max_wal_senders: '10',
  max_replication_slots: '10',
  max_connections: '100',
  timezone: 'UTC',
  log_timezone: 'UTC',
}

export interface PostgresOptions {
  port: number | undefined
  /** Where the data stays, or undefined for data that goes with the server. */
  dataDir: string | undefined
  /** Of the superuser. */
  password: string
  fsync: boolean
  log: (line: string) => void
}

/** A running server, in a folder of its own. */
export interface Postgres {
  readonly port: number
  readonly pid: number
  /** How to connect as the superuser. */
  readonly admin: ClientConfig & {
    host: string
    port: number
    user: string
    password: string
    database: string
  }
  /** Sends the signal to the server, SIGQUIT (stop at once) by default; resolves when it has exited. */
  kill(signal?: 'SIGINT' | 'SIGQUIT' | 'SIGKILL'): Promise<void>
  /** Starts the server again, on the same port and data, after {@link kill}; with nothing to do if it runs. */
  start(): Promise<void>
  /** Stops the server at once, as in a crash, and starts it again. */
  restart(): Promise<void>
  /** Stops the server and removes its folder. */
  stop(): Promise<void>
}

export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  const account = await postgresAccount(options.dataDir)
  const folder = await createFolder(account)
  const dataDir = options.dataDir && (await prepareDataDir(options.dataDir, account))
  const data = dataDir ? join(dataDir, 'postgres') : join(folder, 'data')
  const settings = { ...SETTINGS, fsync: options.fsync ? 'on' : 'off' }
  const arguments_ = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const guardian = new Guardian({
    folder,
    signal: dataDir ? 'INT' : 'QUIT', // a clean shutdown is for data that is used again
    command: [join(folder, 'bin', 'postgres'), '-D', data, ...arguments_, '-p'],
    account,
  })
  guardian.on('line', options.log)
  try {
    await copyBinaries(folder, account)
    if (!existsSync(join(data, 'PG_VERSION'))) await initdb(folder, data, account, options.password)
    return await withPort(options.port, (port) => run(guardian, port, options.password))
  } catch (error) {
    await guardian.end()
    throw error
  }
}

async function createFolder(account: Account | undefined): Promise<string> {
  const folder = await mkdtemp(join(await realpath(tmpdir()), 'pgflow-local-'))
  try {
    if (!account) return folder
    await assertReachable(folder, account)
    await chown(folder, account.uid, account.gid)
    return folder
  } catch (error) {
    await rm(folder, { recursive: true })
    throw error
  }
}

async function prepareDataDir(path: string, account: Account | undefined): Promise<string> {
  const created = await mkdir(path, { recursive: true, mode: 0o755 })
  const dataDir = await realpath(path)
  if (!account) return dataDir
  await assertReachable(join(dataDir, 'postgres'), { ...account })
  if (created) await chown(dataDir, account.uid, account.gid)
  return dataDir
}

async function initdb(
  folder: string,
  data: string,
  account: Account | undefined,
  password: string,
): Promise<void> {
  const passwordFile = join(folder, 'password')
  await writeFile(passwordFile, password, { mode: 0o600 })
  if (account) await chown(passwordFile, account.uid, account.gid)
  const options = ['-D', data, '-U', ADMIN, `--pwfile=${passwordFile}`, '-A', 'scram-sha-256', '-E', 'UTF8']
  const locale = ['--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8']
  try {
    const environment = { ...account, cwd: folder, env: { PATH: process.env.PATH, LC_ALL: 'C' } }
    await promisify(execFile)(
      join(folder, 'bin', 'initdb'),
      [...options, ...locale, '--no-sync'],
      environment,
    )
  } catch (cause) {
    const { stderr } = cause as { stderr?: string }
    throw new LocalSupabaseError(`Postgres could not create its data folder ${data}: ${stderr?.trim()}`, {
      cause,
    })
  } finally {
    await rm(passwordFile, { force: true })
  }
}

/** Starts the server that the guardian holds, and returns what controls it. */
async function run(guardian: Guardian, port: number, password: string): Promise<Postgres> {
  let pid: number | undefined
  guardian.on('pid', (value) => {
    pid = value
  })
  guardian.on('exit', () => {
    pid = undefined
  })
  await boot(guardian, port)
  const postgres: Postgres = {
    port,
    get pid() {
      if (pid === undefined) throw new LocalSupabaseError('Postgres does not run: call start() first.')
      return pid
    },
    admin: { host: HOST, port, user: ADMIN, password, database: 'postgres' },
    async kill(signal = 'SIGQUIT') {
      if (pid === undefined) return
      const exited = once(guardian, 'exit')
      process.kill(pid, signal)
      await exited
    },
    async start() {
      if (pid === undefined) await boot(guardian, port)
    },
    async restart() {
      await postgres.kill()
      await postgres.start()
    },
    stop: () => guardian.end(),
  }
  return postgres
}

/** Resolves when the server accepts connections. */
async function boot(guardian: Guardian, port: number): Promise<void> {
  const failure = await attempt(guardian, port)
  if (!failure) return
  if (failure.includes('could not bind')) throw new PortBusyError(port, 'databasePort', failure)
  // After SIGKILL the server's own children take a moment to notice, and to let go of the data.
  if (failure.includes('pre-existing shared memory block')) return boot(guardian, port)
  throw new LocalSupabaseError(`Postgres did not start: ${failure}`)
}

/** Undefined when the server is ready, or what it said before it exited. */
function attempt(guardian: Guardian, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const said: string[] = []
    const finish = (result: string | undefined) => {
      guardian.off('line', onLine)
      guardian.off('exit', onExit)
      resolve(result)
    }
    const onLine = (line: string) => {
      said.push(line)
      if (line.includes('database system is ready to accept connections')) finish(undefined)
    }
    const onExit = (code: number) => finish(said.join('\n') || `exit code ${code}`)
    guardian.on('line', onLine)
    guardian.on('exit', onExit)
    guardian.run(String(port))
  })
}
