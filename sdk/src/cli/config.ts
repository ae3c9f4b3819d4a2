import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse, patch } from '@decimalturn/toml-patch'
import { CommandError } from './command.ts'

/** Where a project's configuration is, from its folder. */
export const configPath = 'supabase/config.toml'

/** What clients and workers without a database password call: PostgREST has to expose it. */
const ourSchemas = ['pgflow_public', 'pgflow_worker']

/** What is used of a project's `supabase/config.toml`. */
export interface ProjectConfig {
  readonly api: { readonly port: number; readonly schemas: readonly string[] }
  readonly db: { readonly port: number }
}

/** As `supabase init` writes them, with the schemas that pgflow needs. */
const defaults: ProjectConfig = {
  api: { port: 54321, schemas: ['public', ...ourSchemas] },
  db: { port: 54322 },
}

interface Toml {
  readonly api?: { readonly port?: unknown; readonly schemas?: unknown }
  readonly db?: { readonly port?: unknown }
  readonly functions?: Readonly<Record<string, unknown>>
}

/**
 * The configuration of the project in a folder; defaults for what it does not say, or if there is no file.
 *
 * @throws CommandError if the file is not TOML
 */
export async function readConfig(folder: string): Promise<ProjectConfig> {
  const text = await readFile(join(folder, configPath), 'utf8').catch(() => '')
  const { api, db } = parsedConfig(text)
  return {
    api: {
      port: numberOr(defaults.api.port, api?.port),
      schemas: Array.isArray(api?.schemas) ? api.schemas.map(String) : defaults.api.schemas,
    },
    db: { port: numberOr(defaults.db.port, db?.port) },
  }
}

/**
 * The text of `supabase/config.toml`, comments and all, with the schemas exposed.
 *
 * @throws CommandError if it is not TOML
 */
export function withExposedSchemas(text: string): string {
  const config = parsedConfig(text)
  // What the API exposes if nothing is said.
  const schemas = config.api?.schemas ?? ['public', 'graphql_public']
  if (!Array.isArray(schemas)) throw new CommandError(`[api].schemas in ${configPath} is not an array`)
  const missing = ourSchemas.filter((schema) => !schemas.includes(schema))
  return missing.length === 0 ? text : withSchemas(text, config, [...schemas, ...missing])
}

/** The same text without them. */
export function withoutExposedSchemas(text: string): string {
  const config = parsedConfig(text)
  const schemas = config.api?.schemas
  if (!Array.isArray(schemas)) return text
  const others = schemas.filter((schema) => !ourSchemas.includes(schema))
  return others.length === schemas.length ? text : withSchemas(text, config, others)
}

/** The same text with a function that checks its callers itself, if it does not have the function yet. */
export function withFunction(text: string, name: string): string {
  const { functions } = parsedConfig(text)
  if (functions !== undefined && Object.hasOwn(functions, name)) return text
  const newline = text.includes('\r\n') ? '\r\n' : '\n'
  const section = [
    '',
    '# The worker checks a secret of its own.',
    `[functions.${name}]`,
    'verify_jwt = false',
    '',
  ]
  return text.replace(/(\r?\n)*$/, '') + newline + section.join(newline)
}

function withSchemas(text: string, config: Toml, schemas: readonly unknown[]): string {
  return patch(text, { ...config, api: { ...config.api, schemas } })
}

function parsedConfig(text: string): Toml {
  try {
    return parse(text) as Toml
  } catch (cause) {
    throw new CommandError(`${configPath} cannot be read: ${(cause as Error).message}`, { cause })
  }
}

function numberOr(otherwise: number, value: unknown): number {
  return typeof value === 'number' ? value : otherwise
}
