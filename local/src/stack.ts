import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { bootstrap } from './bootstrap.ts'
import { migrate } from './migrate.ts'
import { HOST } from './ports.ts'
import { type Postgres, startPostgres } from './postgres.ts'
import { createKeys, derive, signToken } from './tokens.ts'

export interface LocalSupabaseOptions {
  /** Port of the gateway. @default a free one */
  port?: number
  /** Port of Postgres. @default a free one */
  databasePort?: number
  /** Folder that keeps the database and the keys between starts. @default a temporary one, removed at the stop */
  dataDir?: string
  /** Schemas that REST exposes; the first is the default one. @default ['public', 'pgflow_public'] */
  schemas?: string[]
  /** Folders of migrations, applied as the role `postgres`; see {@link LocalSupabase.migrate}. @default [] */
  migrations?: string[]
  /** Whether commits are flushed to the disk; `false` makes tests faster and a power cut fatal. @default true */
  fsync?: boolean
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
  const { dataDir, signal, log = () => {}, fsync = true, migrations = [] } = options
  signal?.throwIfAborted()
  const jwtSecret = dataDir ? await keptSecret(dataDir) : newSecret()
  const password = derive(jwtSecret, 'database', 32)
  const keys = await createKeys(jwtSecret)
  const postgres = await startPostgres({ port: options.databasePort, dataDir, password, fsync, log })
  const owner = { ...postgres.admin, user: 'postgres' }
  const stack: LocalSupabase = {
    url: '',
    anonKey: keys.anonKey,
    serviceRoleKey: keys.serviceRoleKey,
    publishableKey: keys.publishable,
    secretKey: keys.secret,
    jwtSecret,
    dbUrl: databaseUrl(owner),
    adminDbUrl: databaseUrl(postgres.admin),
    signToken: (claims) => signToken(jwtSecret, claims),
    migrate: (folder) => migrate({ folder, admin: postgres.admin, owner }),
    postgres,
    stop: () => postgres.stop(),
    [Symbol.asyncDispose]: () => postgres.stop(),
  }
  try {
    await bootstrap(postgres, password)
    for (const folder of migrations) await stack.migrate(folder)
    return stack
  } catch (error) {
    await stack.stop()
    throw error
  }
}

const newSecret = () => randomBytes(32).toString('base64url')

async function keptSecret(dataDir: string): Promise<string> {
  const file = join(dataDir, 'jwt-secret')
  await mkdir(dataDir, { recursive: true })
  const kept = await readFile(file, 'utf8').catch(() => undefined)
  if (kept) return kept.trim()
  const secret = newSecret()
  await writeFile(file, `${secret}\n`, { mode: 0o600 })
  return secret
}

function databaseUrl({ user, password, port, database }: Postgres['admin']): string {
  return `postgresql://${user}:${password}@${HOST}:${port}/${database}`
}
