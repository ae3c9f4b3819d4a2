import { describe, expect, it } from 'vitest'
import { schemaProblem, schemaVersion } from './schema-version.ts'

describe('schemaProblem', () => {
  it('is none where the database has the version that is needed, or a newer one', () => {
    expect(schemaProblem(schemaVersion)).toBeUndefined()
    expect(schemaProblem(schemaVersion + 1)).toBeUndefined()
  })

  it('says what to run where it is older, or not installed', () => {
    expect(schemaProblem(schemaVersion - 1)).toBe(
      `The database has version ${schemaVersion - 1} of the migrations of pgflow, and this package needs ${schemaVersion}: ` +
        'copy the newer migrations into supabase/migrations, and run `supabase db push`.',
    )
    expect(schemaProblem(undefined)).toBe(
      'pgflow is not installed in this database: copy its migrations into supabase/migrations, and run `supabase db push`.',
    )
  })
})
