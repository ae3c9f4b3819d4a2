import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'smol-toml'
import { CommandError } from './command.ts'

/** What is used of a project's `supabase/config.toml`. */
export interface ProjectConfig {
  readonly api: { readonly port: number; readonly schemas: readonly string[] }
  readonly db: { readonly port: number }
}

/** As `supabase init` writes them, with the schemas that pgflow needs. */
const defaults: ProjectConfig = {
  api: { port: 54321, schemas: ['public', 'pgflow_public', 'pgflow_worker'] },
  db: { port: 54322 },
}

/**
 * The configuration of the project in a folder; defaults for what it does not say, or if there is no file.
 *
 * @throws CommandError if the file is not TOML
 */
export async function readConfig(folder: string): Promise<ProjectConfig> {
  const path = join(folder, 'supabase/config.toml')
  const text = await readFile(path, 'utf8').catch(() => '')
  try {
    const { api, db } = parse(text) as {
      readonly api?: Partial<Record<string, unknown>>
      readonly db?: Partial<Record<string, unknown>>
    }
    return {
      api: {
        port: numberOr(defaults.api.port, api?.port),
        schemas: Array.isArray(api?.schemas) ? api.schemas.map(String) : defaults.api.schemas,
      },
      db: { port: numberOr(defaults.db.port, db?.port) },
    }
  } catch (cause) {
    throw new CommandError(`${path} cannot be read: ${(cause as Error).message}`, { cause })
  }
}

function numberOr(otherwise: number, value: unknown): number {
  return typeof value === 'number' ? value : otherwise
}
