/**
 * Makes the SQL files that `@pgflow/sdk` ships in its folder `migrations`, from the chapters in `supabase/migrations` and the
 * steps in `supabase/upgrades`. It runs when the package is built; from source, the CLI and the tests call it instead.
 */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { loadModule, parseSync } from 'libpg-query'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** The contents of the files, by their paths within the folder. */
export async function buildMigrations(): Promise<Record<string, string>> {
  await loadModule()
  const chapters = await readFolder('supabase/migrations')
  const upgrades = await readFolder('supabase/upgrades')
  const parts = await readFolder('supabase/upgrades/parts')
  const part = (name: string) => parts[`${name}.sql`]!
  const replaced = Object.entries(chapters).flatMap(([name, sql]) =>
    name.endsWith('_hooks.sql') ? [] : replacements(sql, part('revoke')),
  )
  return {
    'install.sql': Object.values(chapters).join('\n'),
    'upgrade.sql': [part('begin-upgrade'), part('lock'), part('existing')].join('\n'),
    ...Object.fromEntries(Object.entries(upgrades).map(([name, sql]) => [`upgrades/${name}`, sql])),
    'replace.sql': replaced.join('\n'),
    'uninstall.sql': [part('begin-uninstall'), part('lock'), part('remove')].join('\n'),
  }
}

async function readFolder(folder: string): Promise<Record<string, string>> {
  const names = (await readdir(join(root, folder))).filter((name) => name.endsWith('.sql')).sort()
  const entries = names.map(async (name) => [name, await readFile(join(root, folder, name), 'utf8')] as const)
  return Object.fromEntries(await Promise.all(entries))
}

/** What an upgrade runs again of a chapter, each statement with the comment above it. */
function replacements(sql: string, revoke: string): string[] {
  const bytes = Buffer.from(sql)
  const { stmts = [] } = parseSync(sql) as { stmts?: Parsed[] }
  const text = (from: number, to: number) => bytes.subarray(from, to).toString()
  // What precedes the schemas prepares an install.
  const schemas = stmts.findIndex(({ stmt }) => 'CreateSchemaStmt' in stmt)
  return stmts.slice(schemas + 1).flatMap((statement, index, all) => {
    const { stmt, stmt_location = 0, stmt_len = bytes.length - stmt_location } = statement
    const before = index === 0 ? undefined : all[index - 1]!
    const above =
      before === undefined ? '' : text(before.stmt_location! + before.stmt_len! + 1, stmt_location)
    const again = repeatable(stmt, text(stmt_location, stmt_location + stmt_len), revoke)
    return again === undefined ? [] : [`${above.replace(/^.*\n+/, '')}${again}`]
  })
}

/** A statement as libpg-query parses it: its kind, and what is asked of it here. */
interface Parsed {
  stmt: Record<string, Node>
  /** In bytes. */
  stmt_location?: number
  stmt_len?: number
}

interface Node {
  policy_name: string
  table: { schemaname: string; relname: string }
  targtype: string
  objtype: string
  cmds: { AlterTableCmd: { subtype: string } }[]
}

/**
 * The statement as it can run again, or `undefined` for one that `supabase/upgrades` has to bring.
 *
 * @throws {Error} for a kind that the chapters have not had so far
 */
function repeatable(stmt: Parsed['stmt'], text: string, revoke: string): string | undefined {
  const [kind, node] = Object.entries(stmt)[0]!
  switch (kind) {
    case 'CreateFunctionStmt':
    case 'ViewStmt':
    case 'CreateTrigStmt':
      return `${text.replace(/^create /, 'create or replace ')};\n`
    case 'CreatePolicyStmt': {
      const { schemaname, relname } = node.table
      return `drop policy if exists ${node.policy_name} on ${schemaname}.${relname};\n${text};\n`
    }
    case 'GrantStmt':
      if (node.targtype !== 'ACL_TARGET_ALL_IN_SCHEMA') return `${text};\n`
      return node.objtype === 'OBJECT_FUNCTION' ? revoke : undefined // it covers tables, too
    case 'CommentStmt':
    case 'DoStmt':
      return `${text};\n`
    case 'AlterTableStmt':
      return node.cmds.every(({ AlterTableCmd: { subtype } }) =>
        ['AT_EnableRowSecurity', 'AT_SetRelOptions'].includes(subtype),
      )
        ? `${text};\n`
        : undefined
    case 'CreateExtensionStmt':
    case 'CreateSchemaStmt':
    case 'CreateStmt':
    case 'CreateSeqStmt':
    case 'CompositeTypeStmt':
    case 'IndexStmt':
      return undefined
    default:
      throw new Error(`Decide in sdk/scripts/build-migrations.ts whether an upgrade runs this again: ${text}`)
  }
}

/** Writes the files of the package. */
async function main(): Promise<void> {
  const folder = join(root, 'sdk/migrations')
  await rm(folder, { recursive: true, force: true })
  for (const [name, sql] of Object.entries(await buildMigrations())) {
    await mkdir(dirname(join(folder, name)), { recursive: true })
    await writeFile(join(folder, name), sql)
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main()
