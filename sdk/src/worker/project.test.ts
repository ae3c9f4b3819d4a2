import { describe, expect, it } from 'vitest'
import { WorkerStartError } from './errors.ts'
import { projectFrom } from './project.ts'

const SUPABASE_URL = 'https://ref.supabase.co'

describe('projectFrom', () => {
  it('takes the secret key, and the older one where there is no other', () => {
    const SUPABASE_SERVICE_ROLE_KEY = 'e.y.J'
    const SUPABASE_SECRET_KEYS = '{"other":"sb_secret_o","default":"sb_secret_d"}'
    const older = { url: SUPABASE_URL, secretKey: 'e.y.J' }
    expect(projectFrom({ SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY })).toEqual(older)
    expect(projectFrom({ SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY, SUPABASE_SECRET_KEYS: '{}' })).toEqual(
      older,
    )
    expect(projectFrom({ SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY, SUPABASE_SECRET_KEYS })).toEqual({
      url: SUPABASE_URL,
      secretKey: 'sb_secret_d',
    })
  })

  it('takes the one key that the environment of a worker of your own has', () => {
    const keys = { SUPABASE_SECRET_KEY: 'sb_secret_own', SUPABASE_SECRET_KEYS: '{"default":"sb_secret_d"}' }
    expect(projectFrom({ SUPABASE_URL, ...keys })).toEqual({ url: SUPABASE_URL, secretKey: 'sb_secret_own' })
  })

  it.each([
    ['SUPABASE_URL', { SUPABASE_SERVICE_ROLE_KEY: 'k' }],
    ['SUPABASE_SECRET_KEY, SUPABASE_SECRET_KEYS or SUPABASE_SERVICE_ROLE_KEY', { SUPABASE_URL }],
    ['SUPABASE_SECRET_KEYS is not', { SUPABASE_URL, SUPABASE_SECRET_KEYS: 'sb_secret_x' }],
    ['SUPABASE_SECRET_KEYS is not', { SUPABASE_URL, SUPABASE_SECRET_KEYS: 'null' }],
  ])('names what is missing or wrong: %s', (name, environment) => {
    expect(() => projectFrom(environment)).toThrow(WorkerStartError)
    expect(() => projectFrom(environment)).toThrow(name)
  })
})
