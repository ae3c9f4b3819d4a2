import { existsSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import type { AnyFlow } from '../flow/definition.ts'
import { databaseTarget } from '../worker/database-url.ts'
import type { WorkerConnection, WorkerSettings } from '../worker/options.ts'
import { projectFrom } from '../worker/project.ts'
import { startWorker } from '../worker/start.ts'
import { webhooksFrom } from '../worker/webhooks/settings.ts'
import { countOf, parsed } from './arguments.ts'
import { type Command, CommandError, type Io } from './command.ts'
import { type Environment, firstIn, projectUrlIn } from './environment.ts'
import { flowsIn } from './flows.ts'

const usage = 'worker [module…] [--db <url>] [--url <project url>] [--concurrency <n>]'

/** Where `pgflow init` puts the flows. */
export const defaultModule = 'supabase/functions/flow-worker/flows.ts'

/** Runs the flows of modules until it gets SIGTERM or SIGINT. */
export const workerCommand: Command = {
  usage,
  summary: `Runs the flows that modules export, by default ${defaultModule}, until Ctrl-C or SIGTERM.`,
  async run(args, io) {
    const options = {
      db: { type: 'string' },
      url: { type: 'string' },
      concurrency: { type: 'string' },
    } as const
    const { values, words } = parsed(usage, args, options, {}, true)
    const concurrency = countOf('concurrency', values.concurrency)
    const connection = connectionFrom(values, io.environment)
    const flows = await flowsIn(modulesOf(words, io))
    const webhooks = webhooksFrom({ ...io.environment, SUPABASE_URL: projectUrlIn(io.environment) })
    const worker = await started({ ...connection, ...(concurrency && { concurrency }), webhooks }, flows)
    io.out(
      `Worker for ${flows.map(({ slug }) => slug).join(', ')} at ${placeOf(connection)}. Ctrl-C stops it.`,
    )
    onStopSignal((isFirst) => {
      if (!isFirst) process.exit(1)
      io.note('Stopping: running steps have 25 s to finish. Press Ctrl-C again to stop at once.')
      void worker.stop()
    })
    await worker.stopped
  },
}

/** The files that are named, else the default one. */
export function modulesOf(words: readonly string[], { cwd }: Io): string[] {
  if (words.length > 0) return words.map((word) => resolve(cwd, word))
  const file = resolve(cwd, defaultModule)
  if (existsSync(file)) return [file]
  throw new CommandError(
    `There is no ${relative(cwd, file)}: name the module that exports your flows, or let pgflow init write one`,
  )
}

/** Any flows: what their handlers need as resources is only known to those who write their own worker. */
export async function started(
  options: WorkerConnection & WorkerSettings,
  flows: readonly AnyFlow[],
): ReturnType<typeof startWorker> {
  try {
    return await startWorker({ ...options, flows } as Parameters<typeof startWorker>[0])
  } catch (cause) {
    throw new CommandError((cause as Error).message, { cause })
  }
}

/**
 * `--db` or `--url`, else the environment's `DATABASE_URL`, else its project.
 *
 * @throws CommandError naming what is missing
 */
function connectionFrom(
  { db, url }: { readonly db?: string | undefined; readonly url?: string | undefined },
  environment: Environment,
): WorkerConnection {
  if (db !== undefined && url !== undefined) throw new CommandError('give --db or --url, not both')
  const database = db ?? (url === undefined ? environment.DATABASE_URL : undefined)
  if (database) return checked(database, db ? '--db' : 'DATABASE_URL')
  const project = url ?? projectUrlIn(environment)
  if (project === undefined) {
    throw new CommandError(
      'name the database with DATABASE_URL or --db, or the project with SUPABASE_URL or --url and SUPABASE_SECRET_KEY, in the environment, .env.local or .env',
    )
  }
  return { url: project, secretKey: secretKeyIn(environment, project) }
}

function checked(connection: string, option: string): WorkerConnection {
  try {
    databaseTarget(
      connection,
      option,
      'give that of a project as --url, with its secret key in SUPABASE_SECRET_KEY',
    )
    return { connection }
  } catch (cause) {
    throw new CommandError((cause as Error).message, { cause })
  }
}

function secretKeyIn(environment: Environment, project: string): string {
  const key = firstIn(environment, ['SUPABASE_SECRET_KEY'])
  if (key !== undefined) return key
  try {
    return projectFrom({ ...environment, SUPABASE_URL: project }).secretKey
  } catch (cause) {
    throw new CommandError(
      'the environment has no SUPABASE_SECRET_KEY (nor SUPABASE_SECRET_KEYS or SUPABASE_SERVICE_ROLE_KEY): the dashboard shows it under Settings > API Keys. Without it, give the URL of the database as DATABASE_URL or --db',
      { cause },
    )
  }
}

/** Without the password. */
function placeOf({ connection, url }: WorkerConnection): string {
  return connection === undefined ? `${url}` : connection.replace(/^[^:]*:\/\/(?:[^/?#]*@)?([^?]*).*$/s, '$1')
}

/** Calls back when the process is asked to stop, and again when it is asked once more. */
export function onStopSignal(onSignal: (isFirst: boolean) => void): void {
  let isFirst = true
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      onSignal(isFirst)
      isFirst = false
    })
  }
}
