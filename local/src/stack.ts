import { type Account, postgresAccount } from './account.ts'
import { locateBinaries } from './binaries.ts'
import { bootstrap, bootstrapFiles } from './bootstrap.ts'
import { newSecret, openDataDir } from './data-dir.ts'
import { messageOf } from './errors.ts'
import { startGateway } from './gateway.ts'
import { migrate } from './migrate.ts'
import { startPooler } from './pooler.ts'
import { HOST } from './ports.ts'
import { type Postgres, startPostgres } from './postgres.ts'
import { type Realtime, type RealtimeStartSettings, startRealtime } from './realtime/index.ts'
import { Template } from './template.ts'
import { createKeys, derive, signToken } from './tokens.ts'

export interface LocalSupabaseOptions {
  /** Port of the gateway. @default a free one */
  port?: number
  /** Port of Postgres. @default a free one */
  databasePort?: number
  /**
   * Folder of another Postgres than the package's, which is 17: one that has `bin/postgres`, for instance
   * `/usr/lib/postgresql/15` of Debian. It needs no pgmq. @default that of the package
   */
  postgresFolder?: string
  /** Folder that keeps the database and the keys between starts. @default a temporary one, removed at the stop */
  dataDir?: string
  /** Schemas that REST exposes; the first is the default one. @default ['public', 'pgflow_public', 'pgflow_worker'] */
  schemas?: string[]
  /** Folders of migrations, applied as the role `postgres`; see {@link LocalSupabase.migrate}. @default [] */
  migrations?: string[]
  /** Whether commits are flushed to the disk; `false` makes tests faster and a power cut fatal. @default true */
  fsync?: boolean
  /** How Realtime behaves. @default without waits and limits; `{ realistic: true }` has those of the platform */
  realtime?: RealtimeStartSettings
  /** Stops the stack. */
  signal?: AbortSignal
  /** Takes the lines that Postgres and the gateway log. @default silent */
  log?: (line: string) => void
}

/** A running stack. */
export interface LocalSupabase extends AsyncDisposable {
  /** What `createClient` takes. */
  url: string
  anonKey: string
  serviceRoleKey: string
  /** `sb_publishable_…`, the role `anon`. */
  publishableKey: string
  /** `sb_secret_…`, the role `service_role`. */
  secretKey: string
  jwtSecret: string
  /** As `postgres`, the owner of the application's objects, not a superuser. */
  dbUrl: string
  /** As `dbUrl`, through a transaction pooler: no transaction finds the session of another. */
  poolerUrl: string
  /** As `supabase_admin`, a superuser: for tests. */
  adminDbUrl: string
  /** Signs a user's token; `role` defaults to `authenticated`, `exp` to one hour from now. */
  signToken(claims?: Record<string, unknown>): Promise<string>
  /**
   * Applies the `<digits>_<name>.sql` files of a folder that were not applied before, in order of their names, each
   * in a transaction, as the role `postgres`.
   *
   * @returns the names of the files that it applied
   * @throws {LocalSupabaseError} naming file and line
   */
  migrate(folder: string): Promise<string[]>
  /** For tests of what may go wrong with broadcasts. */
  realtime: Realtime
  /** For tests of crashes. */
  postgres: Pick<Postgres, 'pid' | 'kill' | 'start' | 'restart'>
  /** Stops everything and removes what is temporary; may be called again. */
  stop(): Promise<void>
}

/**
 * Starts a Supabase stack on this machine: Postgres, REST functions, Realtime, anonymous sign-in.
 *
 * @throws {LocalSupabaseError} saying how to go on: a busy port, a missing binary, a failed migration
 * @example
 * await using stack = await startLocalSupabase({ migrations: ['supabase/migrations'] })
 * const supabase = createClient(stack.url, stack.publishableKey)
 */
export async function startLocalSupabase(options: LocalSupabaseOptions = {}): Promise<LocalSupabase> {
  options.signal?.throwIfAborted()
  const stoppers: Stopper[] = []
  const stop = once(() => stopAll(stoppers))
  try {
    const stack = await startParts(options, stoppers)
    for (const folder of options.migrations ?? []) await stack.migrate(folder)
    options.signal?.throwIfAborted()
    stopOnAbort(options, stoppers, stop)
    return Object.assign(stack, { stop, [Symbol.asyncDispose]: stop })
  } catch (error) {
    await stop()
    throw error
  }
}

type Stopper = () => Promise<void> | void
type Parts = Omit<LocalSupabase, 'stop' | typeof Symbol.asyncDispose>

/** Starts one part after the other; each leaves behind what stops it. */
async function startParts(options: LocalSupabaseOptions, stoppers: Stopper[]): Promise<Parts> {
  const {
    dataDir,
    log = () => {},
    fsync = true,
    schemas = ['public', 'pgflow_public', 'pgflow_worker'],
  } = options
  const account = await postgresAccount(dataDir)
  const kept = dataDir ? await openDataDir(dataDir, account) : undefined
  const jwtSecret = kept?.jwtSecret ?? newSecret()
  const password = derive(jwtSecret, 'database', 32)
  const keys = await createKeys(jwtSecret)
  const template = kept ? undefined : await templateOf(options.postgresFolder, account)
  const postgres = await startPostgres({
    template,
    port: options.databasePort,
    binaries: options.postgresFolder,
    account,
    keptData: kept?.data,
    password,
    fsync,
    log,
  })
  stoppers.push(() => postgres.stop())
  await bootstrap(postgres, password, template)
  const { admin } = postgres
  const owner = { ...admin, user: 'postgres' }
  const pooler = await startPooler(owner, log)
  stoppers.push(() => pooler.stop())
  const realtime = startRealtime({ log, ...options.realtime, database: admin, jwtSecret, keys })
  stoppers.push(() => realtime.stop())
  const gateway = await startGateway({ port: options.port, admin, schemas, jwtSecret, keys, realtime, log })
  stoppers.push(() => gateway.stop())
  return {
    url: gateway.url,
    anonKey: keys.anonKey,
    serviceRoleKey: keys.serviceRoleKey,
    publishableKey: keys.publishable,
    secretKey: keys.secret,
    jwtSecret,
    dbUrl: databaseUrl(owner),
    poolerUrl: databaseUrl({ ...owner, port: pooler.port }),
    adminDbUrl: databaseUrl(admin),
    signToken: (claims) => signToken(jwtSecret, claims),
    migrate: (folder) => migrate({ folder, admin, owner }),
    realtime,
    postgres,
  }
}

/** Where the environment says so. (Kept data are made once in any case.) */
async function templateOf(
  postgresFolder: string | undefined,
  account: Account | undefined,
): Promise<Template | undefined> {
  const folder = process.env.PGFLOW_TEMPLATES
  if (!folder) return undefined
  return Template.of(folder, postgresFolder ?? locateBinaries(), account, await bootstrapFiles())
}

/** Stops the parts, the last one first, all of them even if one fails. */
async function stopAll(stoppers: Stopper[]): Promise<void> {
  const failures: unknown[] = []
  for (const stopper of stoppers.reverse()) {
    try {
      await stopper()
    } catch (error) {
      failures.push(error)
    }
  }
  if (failures.length > 0) throw failures[0]
}

function stopOnAbort(
  { signal, log }: LocalSupabaseOptions,
  stoppers: Stopper[],
  stop: () => Promise<void>,
): void {
  if (!signal) return
  const onAbort = () => {
    stop().catch((error) => log?.(`stop: ${messageOf(error)}`))
  }
  signal.addEventListener('abort', onAbort, { once: true })
  stoppers.push(() => signal.removeEventListener('abort', onAbort))
}

function once<T>(run: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined
  return () => {
    result ??= run()
    return result
  }
}

function databaseUrl({ user, password, port, database }: Postgres['admin']): string {
  return `postgresql://${user}:${password}@${HOST}:${port}/${database}`
}
