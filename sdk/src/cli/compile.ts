import { stat } from 'node:fs/promises'
import { relative, resolve } from 'node:path'
import { definitionOf, sqlOf } from '../flow/compile.ts'
import { parsed } from './arguments.ts'
import { type Command, CommandError, type Io } from './command.ts'
import { writeFlowMigration } from './flow-migration.ts'
import { flowsOf, related } from './flows.ts'
import { withSchemas } from './schemas.ts'

const usage = 'compile <file.ts> [--out <folder>] [--no-schemas]'

/** Writes a migration for each flow that a module exports, and for those that these start; a flow that has not changed is left alone. */
export const compileCommand: Command = {
  usage,
  summary:
    'Writes a migration for each flow that the file exports and for its sub-flows, into supabase/migrations or --out. JSON Schemas of inputs and payloads are derived from their types, if ts-json-schema-generator is installed.',
  async run(args, io) {
    const { file, out, schemas } = read(args, io)
    const flows = await flowsOf(file)
    const folder = await existing(out, io)
    const definitions = related([...flows.values()]).map(definitionOf)
    const complete = schemas ? await withSchemas(file, flows, definitions, io) : definitions
    for (const definition of complete) {
      const slug = definition.flow_slug
      const path = await writeFlowMigration(folder, slug, sqlOf(definition), io.now)
      io.out(path === undefined ? `${slug} is up to date` : `${slug} → ${relative(io.cwd, path)}`)
    }
  },
}

function read(args: readonly string[], { cwd }: Io): { file: string; out: string; schemas: boolean } {
  const options = { out: { type: 'string' }, 'no-schemas': { type: 'boolean' } } as const
  const { values, words } = parsed(usage, args, options, { file: 'name the file that exports the flows' })
  const out = values.out ?? 'supabase/migrations'
  return { file: resolve(cwd, words[0]!), out: resolve(cwd, out), schemas: values['no-schemas'] !== true }
}

async function existing(folder: string, { cwd }: Io): Promise<string> {
  const found = await stat(folder).catch(() => undefined)
  if (found?.isDirectory()) return folder
  throw new CommandError(
    `There is no folder ${relative(cwd, folder)}: run it where your folder supabase is, make it, or name another with --out`,
  )
}
