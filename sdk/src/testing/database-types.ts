import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { startLocalSupabase } from '@pgflow/local'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../../../', import.meta.url))
const cli = join(dirname(createRequire(import.meta.url).resolve('supabase/package.json')), 'dist/supabase.js')

/** The schemas of `client/fixtures/project`. */
export const projectSchemas = ['public', 'api', 'empty', 'clock'] as const

/** What `supabase gen types` writes for the project of `client/fixtures/project`, which has pgflow installed. */
export async function generateTypes(schemas: readonly string[]): Promise<string> {
  const migrations = ['supabase/migrations', 'sdk/src/client/fixtures/project'].map((path) =>
    join(root, path),
  )
  await using stack = await startLocalSupabase({ migrations, fsync: false })
  // The CLI keeps files in the home directory.
  const home = await mkdtemp(join(tmpdir(), 'pgflow-supabase-'))
  try {
    const env = { ...process.env, HOME: home, PGSSLMODE: 'disable', DO_NOT_TRACK: '1' }
    const target = [`--remote=${stack.dbUrl}`, `--schema=${schemas.join()}`]
    const { stdout } = await run(process.execPath, [cli, 'gen', 'types', ...target], { env, cwd: home })
    return stdout
  } finally {
    await rm(home, { recursive: true })
  }
}
