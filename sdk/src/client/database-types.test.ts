import { readFile } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { generateTypes, projectSchemas } from '../testing/database-types.ts'

it('the fixture is what the Supabase CLI generates for the project', async () => {
  const fixture = new URL('./fixtures/project/database.types.ts', import.meta.url)
  expect(await readFile(fixture, 'utf8')).toBe(await generateTypes(projectSchemas))
})
