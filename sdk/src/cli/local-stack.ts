import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { CommandError } from './command.ts'

/** What is used of `@pgflow/local`, which is an optional package. */
export interface LocalStack {
  readonly url: string
  readonly publishableKey: string
  readonly secretKey: string
  readonly anonKey: string
  readonly serviceRoleKey: string
  readonly dbUrl: string
  /** @returns the names of the files that it applied */
  migrate(folder: string): Promise<string[]>
  stop(): Promise<void>
}

export interface LocalStackOptions {
  readonly port?: number
  readonly databasePort?: number
  readonly dataDir: string
  readonly schemas: string[]
  readonly realtime: { readonly realistic: boolean }
  readonly signal: AbortSignal
}

interface LocalPackage {
  startLocalSupabase(options: LocalStackOptions): Promise<LocalStack>
}

/**
 * The package, as this one or the project in the folder finds it.
 *
 * @throws CommandError if it is not installed
 */
export async function loadLocalPackage(folder: string): Promise<LocalPackage> {
  const name = '@pgflow/local'
  try {
    return await import(name)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw cause
    const path = pathIn(folder, name)
    if (path !== undefined) return import(pathToFileURL(path).href)
    throw new CommandError(
      `this needs the package ${name}: npm install --save-dev ${name}. With Docker, use supabase start and pgflow worker instead`,
      { cause },
    )
  }
}

function pathIn(folder: string, name: string): string | undefined {
  try {
    return createRequire(join(folder, 'package.json')).resolve(name)
  } catch {
    return undefined
  }
}

/** Whether nothing listens at a port of this machine. */
export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
