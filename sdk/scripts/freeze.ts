/** Keeps the current version of the migrations as it is released, for the tests of upgrades: `npm run freeze`. */
import { writeFile } from 'node:fs/promises'
import { currentVersion, installSql } from '../src/cli/migration-sql.ts'

const file = new URL(`../../supabase/tests/versions/${currentVersion}.sql`, import.meta.url)
await writeFile(file, await installSql(), { flag: 'wx' }) // a released version never changes
