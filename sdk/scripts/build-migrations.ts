/**
 * Makes the SQL files that `@pgflow/sdk` ships in its folder `migrations`, from the chapters in `supabase/migrations` and the
 * steps in `supabase/upgrades`. It runs when the package is built; from source, the CLI and the tests call it instead.
 */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { loadModule, parseSync } from 'libpg-query'
import { schemaVersion } from '../src/shared/schema-version.ts'

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
    'pgflow.sql': [contents(chapters), ...Object.values(chapters)].join('\n'),
    'upgrade.sql': [part('begin-upgrade'), part('lock'), part('existing')].join('\n'),
    ...Object.fromEntries(Object.entries(upgrades).map(([name, sql]) => [`upgrades/${name}`, sql])),
    'replace.sql': replaced.join('\n'),
    'uninstall.sql': [part('begin-uninstall'), part('lock'), part('remove')].join('\n'),
  }
}

/** What the install begins with: how to apply it, and what its chapters are about. */
function contents(chapters: Record<string, string>): string {
  const titles = Object.entries(chapters).map(([name, sql]) => {
    const [, title] = /^-- (Chapter \d+: [^.\n]+)/.exec(sql) ?? []
    if (title === undefined) throw new Error(`${name} does not begin with the title of a chapter`)
    return `--   ${title}`
  })
  return [
    `-- pgflow ${schemaVersion}: everything that the database holds of it, in ${titles.length} chapters. Written by @pgflow/sdk.`,
    '-- It is applied once, in one transaction: psql -1 -v ON_ERROR_STOP=1 -f pgflow.sql',
    '--',
    ...titles,
    '',
  ].join('\n')
}

async function readFolder(folder: string): Promise<Record<string, string>> {
  const names = (await readdir(join(root, folder))).filter((name) => name.endsWith('.sql')).sort()
  const entries = names.map(async (name) => [name, await readFile(join(root, folder, name), 'utf8')] as const)
  return Object.fromEntries(await Promise.all(entries))
}

/** What an upgrade runs again of a chapter, each statement with the comment above it. */
function replacements(sql: string, revoke: string): string[] {
  const bytes = Buffer.from(sql)
  const stmts = parseSync(sql).stmts ?? []
  // What precedes the schemas prepares an install.
  const first = 1 + stmts.findIndex(({ stmt }) => 'CreateSchemaStmt' in stmt!)
  return stmts.slice(first).flatMap((statement, index) => {
    const before = stmts[first + index - 1]
    const comment = bytes.subarray(before ? endOf(before) : 0, statement.stmt_location)
    const text = bytes.subarray(statement.stmt_location, endOf(statement) - 1)
    const again = repeatable(statement.stmt!, text.toString(), revoke)
    return again === undefined ? [] : [`${comment.toString().trimStart()}${again}`]
  })
}

/** The byte after a statement's semicolon. */
function endOf({ stmt_location = 0, stmt_len = 0 }: RawStmt): number {
  return stmt_location + stmt_len + 1
}

type RawStmt = NonNullable<ReturnType<typeof parseSync>['stmts']>[number]
type Statement = NonNullable<RawStmt['stmt']>

/**
 * The statement as it can run again, or `undefined` for one that `supabase/upgrades` has to bring.
 *
 * @throws {Error} for a kind that the chapters have not had so far
 */
function repeatable(stmt: Statement, text: string, revoke: string): string | undefined {
  if ('CreateFunctionStmt' in stmt || 'ViewStmt' in stmt || 'CreateTrigStmt' in stmt) {
    return `${text.replace(/^create /, 'create or replace ')};\n`
  }
  if ('CreatePolicyStmt' in stmt) {
    const { table, policy_name } = stmt.CreatePolicyStmt
    return `drop policy if exists ${policy_name} on ${table!.schemaname}.${table!.relname};\n${text};\n`
  }
  if ('GrantStmt' in stmt && stmt.GrantStmt.targtype === 'ACL_TARGET_ALL_IN_SCHEMA') {
    return stmt.GrantStmt.objtype === 'OBJECT_FUNCTION' ? revoke : undefined // it covers tables, too
  }
  if ('AlterTableStmt' in stmt && !setsOnly(stmt.AlterTableStmt.cmds)) return undefined
  const [kind] = Object.keys(stmt) as [string]
  if (['GrantStmt', 'CommentStmt', 'DoStmt', 'AlterTableStmt'].includes(kind)) return `${text};\n`
  if (/^(Create(Extension|Schema|Seq|)|CompositeType|Index)Stmt$/.test(kind)) return undefined
  throw new Error(`Decide in sdk/scripts/build-migrations.ts whether an upgrade runs ${kind} again: ${text}`)
}

/** Whether the commands of an ALTER TABLE change nothing when they are run again. */
function setsOnly(commands: Statement[] = []): boolean {
  return commands.every(
    (command) =>
      'AlterTableCmd' in command &&
      ['AT_EnableRowSecurity', 'AT_SetRelOptions'].includes(command.AlterTableCmd.subtype ?? ''),
  )
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
