import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chown, mkdir, realpath, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Account, assertReachable, assertWritable } from './account.ts'
import { copyBinaries, locateBinaries } from './binaries.ts'
import { LocalSupabaseError } from './errors.ts'
import { HOST, PortBusyError, withPort } from './ports.ts'
import { Supervisor } from './supervisor.ts'
import type { Template } from './template.ts'

/** The cluster's superuser, as on the platform. */
const ADMIN = 'supabase_admin'

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
  /** The folder of its files; `undefined` for those of the npm package. */
  binaries?: string | undefined
  /** Runs the server, when this process is root. */
  account: Account | undefined
  /** Where the data stays, or undefined for data that goes with the server. */
  keptData: string | undefined
  /** What new data are copied from, where it exists. */
  template?: Template | undefined
  /** Of the superuser. */
  password: string
  fsync: boolean
  log: (line: string) => void
}

/** Where a database is, and as whom to connect. */
export interface DatabaseAddress {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
}

/** A running server, in a folder of its own. */
export interface Postgres {
  readonly port: number
  readonly pid: number
  /** How to connect as the superuser. */
  readonly admin: DatabaseAddress
  /** Sends the signal to the server, SIGQUIT (stop at once) by default; resolves when it has exited. */
  kill(signal?: 'SIGINT' | 'SIGQUIT' | 'SIGKILL'): Promise<void>
  /** Starts the server again, on the same port and data, after {@link kill}; with nothing to do if it runs. */
  start(): Promise<void>
  /** Stops the server at once, as in a crash, and starts it again. */
  restart(): Promise<void>
  /** Stops the server cleanly, waits until its data have been used, and starts it again. */
  withDataAtRest(use: (data: string) => Promise<void>): Promise<void>
  /** Stops the server and removes its folder. */
  stop(): Promise<void>
}

export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  const { account, keptData, fsync, log } = options
  const native = options.binaries ?? locateBinaries()
  const folder = await temporaryFolder(account)
  const data = keptData ?? join(folder, 'data')
  const settings = Object.entries({ ...SETTINGS, fsync: fsync ? 'on' : 'off' })
  const supervisor = new Supervisor({
    folder,
    signal: keptData ? 'INT' : 'QUIT', // a clean shutdown is for data that is used again
    command: [
      join(folder, 'bin', 'postgres'),
      ...['-D', data],
      ...settings.flatMap(([name, value]) => ['-c', `${name}=${value}`]),
      '-p',
    ],
    account,
  })
  supervisor.on('line', log)
  try {
    await supervisor.ready()
    await copyBinaries(native, folder, account)
    if (!existsSync(data)) await createData(folder, data, options)
    return await withPort(options.port, (port) => run(supervisor, port, data, options.password))
  } catch (error) {
    await supervisor.end()
    throw error
  }
}

/** A folder that does not exist yet, in one where the account may make and remove it. */
async function temporaryFolder(account: Account | undefined): Promise<string> {
  const parent = await realpath(tmpdir())
  const folder = join(parent, `pgflow-local-${randomUUID()}`)
  if (account) await assertReachable(folder, account)
  if (account) await assertWritable(parent, account)
  return folder
}

/** Creates the data beside its place and then moves it there, so that it is never there in part. */
async function createData(folder: string, data: string, options: PostgresOptions): Promise<void> {
  const { account, password, keptData } = options
  const unfinished = `${data}.new`
  const passwordFile = join(folder, 'password')
  await rm(unfinished, { recursive: true, force: true })
  if (await options.template?.copyTo(unfinished)) return rename(unfinished, data)
  await mkdir(unfinished, { mode: 0o700 })
  await writeFile(passwordFile, password, { mode: 0o600 })
  for (const path of account ? [unfinished, passwordFile] : []) await chown(path, account!.uid, account!.gid)
  const initdb = [
    ...['-D', unfinished, '-U', ADMIN, '-A', 'scram-sha-256', `--pwfile=${passwordFile}`],
    ...['-E', 'UTF8', ...(await localeOptions(join(folder, 'bin', 'initdb'), folder))],
    ...(keptData ? [] : ['--no-sync']),
  ]
  try {
    const environment = { ...account, cwd: folder, env: { PATH: process.env.PATH, LC_ALL: 'C' } }
    await promisify(execFile)(join(folder, 'bin', 'initdb'), initdb, environment)
    await rename(unfinished, data)
  } catch (cause) {
    const { stderr } = cause as { stderr?: string }
    throw new LocalSupabaseError(`Postgres could not create its data in ${data}: ${stderr?.trim()}`, {
      cause,
    })
  } finally {
    await rm(passwordFile, { force: true })
  }
}

/** Text is sorted by code points, and has letters beyond ASCII; Postgres does that by itself from version 17 on. */
async function localeOptions(initdb: string, cwd: string): Promise<string[]> {
  const { stdout } = await promisify(execFile)(initdb, ['--version'], { cwd })
  const isBuiltin = Number(/\d+/.exec(stdout)) >= 17
  return isBuiltin
    ? ['--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8']
    : ['--locale=C.UTF-8']
}

/** Starts the server under the supervisor, and returns what controls it. */
async function run(supervisor: Supervisor, port: number, data: string, password: string): Promise<Postgres> {
  let pid: number | undefined
  supervisor.on('pid', (value) => {
    pid = value
  })
  supervisor.on('exit', () => {
    pid = undefined
  })
  await boot(supervisor, port)
  const postgres: Postgres = {
    port,
    get pid() {
      if (pid === undefined) throw new LocalSupabaseError('Postgres does not run: call start() first.')
      return pid
    },
    admin: { host: HOST, port, user: ADMIN, password, database: 'postgres' },
    async kill(signal = 'SIGQUIT') {
      if (pid === undefined) return
      const exited = once(supervisor, 'exit')
      process.kill(pid, signal)
      await exited
    },
    async start() {
      if (pid === undefined) await boot(supervisor, port)
    },
    async restart() {
      await postgres.kill()
      await postgres.start()
    },
    async withDataAtRest(use) {
      await postgres.kill('SIGINT')
      await use(data)
      await postgres.start()
    },
    stop: () => supervisor.end(),
  }
  return postgres
}

/** Resolves when the server accepts connections. */
async function boot(supervisor: Supervisor, port: number): Promise<void> {
  const failure = await attempt(supervisor, port)
  if (!failure) return
  if (failure.includes('could not bind')) throw new PortBusyError(port, 'databasePort', failure)
  if (failure.includes('"postmaster.pid" already exists')) {
    throw new LocalSupabaseError(
      'The data folder is in use by another stack: stop that one, or choose another folder.',
      { cause: failure },
    )
  }
  // After SIGKILL the server's own children take a moment to notice, and to let go of the data.
  if (failure.includes('pre-existing shared memory block')) return boot(supervisor, port)
  throw new LocalSupabaseError(`Postgres did not start: ${failure}`)
}

/** Undefined when the server is ready, or what it said before it exited. */
function attempt(supervisor: Supervisor, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const said: string[] = []
    const finish = (result: string | undefined) => {
      supervisor.off('line', onLine)
      supervisor.off('exit', onExit)
      resolve(result)
    }
    const onLine = (line: string) => {
      said.push(line)
      if (line.includes('database system is ready to accept connections')) finish(undefined)
    }
    const onExit = () => finish(said.join('\n') || 'it said nothing')
    supervisor.on('line', onLine)
    supervisor.on('exit', onExit)
    supervisor.run(String(port))
  })
}
