import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'
import postgres, { type Sql } from 'postgres'
import { schemaProblem } from '../shared/schema-version.ts'
import { schemaVersion } from '../worker/queries.ts'
import { countOf, parsed } from './arguments.ts'
import { type Command, CommandError, type Io } from './command.ts'
import { type ProjectConfig, readConfig } from './config.ts'
import { problemOf } from './database.ts'
import { linesOfStack, localEnvironment } from './dev-text.ts'
import { DevWorkers } from './dev-workers.ts'
import { isFree, type LocalStack, loadLocalPackage } from './local-stack.ts'
import { countRunsOf, deleteFlow } from './queries.ts'
import { FileWatch } from './watch.ts'
import { defaultModule, onStopSignal } from './worker.ts'

const usage = 'dev [module…] [--port <n>] [--no-worker] [--data <folder>] [--reset]'

/** Where the Supabase CLI keeps its own temporary files, which git ignores. */
const defaultData = 'supabase/.temp/pgflow'

/** Starts a local stack with the project's migrations and flows, until Ctrl-C. */
export const devCommand: Command = {
  usage,
  summary: `Starts a local Supabase stack without Docker, applies supabase/migrations, and runs the flows of modules (by default ${defaultModule}) with a worker that restarts when they change.`,
  async run(args, io) {
    const options = {
      port: { type: 'string' },
      'no-worker': { type: 'boolean' },
      data: { type: 'string' },
      reset: { type: 'boolean' },
    } as const
    const { values, words } = parsed(usage, args, options, {}, true)
    const modules = await modulesFrom(words, values['no-worker'] ?? false, io)
    const port = countOf('port', values.port)
    const dataDir = resolve(io.cwd, values.data ?? defaultData)
    const { startLocalSupabase } = await loadLocalPackage(io.cwd)
    const stopping = new AbortController()
    onStopSignal((isFirst) => {
      if (!isFirst) process.exit(1)
      io.note('Stopping …')
      stopping.abort()
    })
    const config = await readConfig(io.cwd)
    await prepare(dataDir, values.reset ?? false)
    io.note('Starting Postgres, REST and Realtime …')
    let stack: LocalStack
    try {
      stack = await startLocalSupabase({
        ...(await portsFrom(config, port, io)),
        ...{ dataDir, schemas: [...config.api.schemas], signal: stopping.signal },
        realtime: { realistic: true },
      })
    } catch (cause) {
      if (stopping.signal.aborted) return
      throw new CommandError(
        `the local stack did not start: ${(cause as Error).message}${/folder/.test((cause as Error).message) ? ' Its folder is --data <folder>.' : ''}`,
        { cause },
      )
    }
    const session = new Session({ stack, modules, io, stopping: stopping.signal })
    try {
      for (const line of linesOfStack(stack, relative(io.cwd, dataDir), await packagesIn(io.cwd)))
        io.out(line)
      await session.run()
    } finally {
      await session.close()
      await stack.stop()
    }
  },
}

/** The modules to run: none where the default one does not exist. */
async function modulesFrom(words: readonly string[], without: boolean, { cwd, note }: Io): Promise<string[]> {
  if (without) return []
  if (words.length > 0) {
    const files = words.map((word) => resolve(cwd, word))
    const missing = files.find((file) => !existsSync(file))
    if (missing !== undefined) throw new CommandError(`There is no file ${missing}`)
    return files
  }
  const file = resolve(cwd, defaultModule)
  if (existsSync(file)) return [file]
  note(
    `There is no ${defaultModule}: only the stack is started. Name the module that exports your flows, or let pgflow init write one`,
  )
  return []
}

/** Makes the folder, which git is to ignore. */
async function prepare(dataDir: string, isReset: boolean): Promise<void> {
  if (isReset) await rm(join(dataDir, 'postgres'), { recursive: true, force: true })
  await mkdir(dataDir, { recursive: true })
  await writeFile(join(dataDir, '.gitignore'), '*\n')
}

/** Those of `supabase start`, so that the URL stays the same; free ones where these are taken and were not asked for. */
async function portsFrom({ api, db }: ProjectConfig, port: number | undefined, { note }: Io) {
  const wanted = port ?? api.port
  const [apiIsFree, dbIsFree] = [await isFree(wanted), await isFree(db.port)]
  if (!apiIsFree && port === undefined)
    note(`Port ${wanted} is in use, by supabase start for instance: taking another one`)
  return {
    ...((apiIsFree || port !== undefined) && { port: wanted }),
    ...(dbIsFree && { databasePort: db.port }),
  }
}

async function packagesIn(folder: string): Promise<readonly string[]> {
  const text = await readFile(join(folder, 'package.json'), 'utf8').catch(() => '{}')
  try {
    const { dependencies = {}, devDependencies = {} } = JSON.parse(text) as Record<string, object | undefined>
    return Object.keys({ ...dependencies, ...devDependencies })
  } catch {
    return []
  }
}

interface SessionOptions {
  readonly stack: LocalStack
  readonly modules: readonly string[]
  readonly io: Io
  readonly stopping: AbortSignal
}

/** What runs on a stack: migrations, as they appear, and the worker. */
class Session {
  readonly #options: SessionOptions
  readonly #folder: string
  readonly #sql: Sql
  readonly #workers: DevWorkers | undefined
  readonly #migrations: FileWatch
  /** Migrations are applied one after the other. */
  #applying: Promise<unknown> = Promise.resolve()
  #hasStarted = false
  #question: AbortController | undefined

  constructor(options: SessionOptions) {
    const { stack, modules, io } = options
    this.#options = options
    this.#folder = join(io.cwd, 'supabase/migrations')
    this.#sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {}, idle_timeout: 5 })
    this.#migrations = new FileWatch(() => this.#migrate())
    if (modules.length === 0) return
    this.#workers = new DevWorkers({
      ...{ connection: stack.dbUrl, modules, cwd: io.cwd },
      environment: { ...io.environment, ...localEnvironment(stack) },
      onStarting: () => this.#question?.abort(),
      onStarted: (flows) => {
        io.out(`${this.#hasStarted ? 'Restarted' : 'Started'} the worker for ${flows.join(', ')}`)
        this.#hasStarted = true
      },
      onFailed: ({ message, changedFlow }) => {
        io.note(
          `${message}\n${this.#hasStarted ? 'The flows before the change go on. ' : ''}Save a module to try again.`,
        )
        if (changedFlow !== undefined) void this.#offerReplacing(changedFlow)
      },
    })
  }

  async run(): Promise<void> {
    const { io, stopping } = this.#options
    this.#migrate()
    await this.#applying
    if (!stopping.aborted) io.out('Ready. Ctrl-C stops everything.')
    await new Promise<void>((resolve) => {
      if (stopping.aborted) resolve()
      else stopping.addEventListener('abort', () => resolve())
    })
  }

  async close(): Promise<void> {
    this.#migrations.close()
    this.#question?.abort()
    await this.#workers?.close()
    await this.#applying
    await this.#sql.end({ timeout: 1 })
  }

  #migrate(): void {
    this.#applying = this.#applying.then(async () => {
      const { io, stack, stopping } = this.#options
      if (stopping.aborted) return
      try {
        this.#migrations.set(await this.#watched())
        const names = existsSync(this.#folder) ? await stack.migrate(this.#folder) : []
        for (const name of names) io.out(`Applied ${name}`)
        const problem = schemaProblem(await schemaVersion(this.#sql))
        if (problem === undefined) this.#workers?.start()
        else
          io.note(
            `${problem.replace('supabase db push', 'a new file in supabase/migrations is applied at once')}`,
          )
      } catch (error) {
        io.note(`A migration failed: ${(error as Error).message}\nCorrect the file to try again.`)
      }
    })
  }

  /** The folders, for new files, and the files, which may be corrected. */
  async #watched(): Promise<Set<string>> {
    const files = await readdir(this.#folder).catch(() => [])
    return new Set([
      join(this.#options.io.cwd, 'supabase'),
      this.#folder,
      ...files.map((file) => join(this.#folder, file)),
    ])
  }

  /** A shape that differs needs a version where runs are worth something; here they can be deleted. */
  async #offerReplacing(flow_slug: string): Promise<void> {
    const { io } = this.#options
    try {
      const count = await countRunsOf(this.#sql, flow_slug)
      const runs = count === 1 ? '1 run' : `${count} runs`
      io.note(
        `Either give the flow a version, as in production, or delete the flow and its ${runs} in this local database.`,
      )
      if (io.ask === undefined)
        return io.note('At a terminal pgflow dev offers that; --reset empties the database.')
      this.#question = new AbortController()
      if (!(await io.ask(`Delete "${flow_slug}" and its ${runs} here?`, this.#question.signal))) return
      await deleteFlow(this.#sql, flow_slug)
      this.#workers?.restart()
    } catch (error) {
      io.note(problemOf(error))
    }
  }
}
