import { WorkerStartError } from './errors.ts'
import type { ProjectConnection } from './options.ts'

/**
 * The project that the environment names: `SUPABASE_URL`, and `SUPABASE_SECRET_KEY`. Edge Functions get the key from
 * Supabase as `default` of `SUPABASE_SECRET_KEYS` or, in older projects, as `SUPABASE_SERVICE_ROLE_KEY`.
 *
 * @throws WorkerStartError naming what is missing
 *
 * @example
 * serveWorker({ flows, secret, ...projectFrom(Deno.env.toObject()) })
 */
export function projectFrom(environment: Readonly<Record<string, string | undefined>>): ProjectConnection {
  const {
    SUPABASE_URL,
    SUPABASE_SECRET_KEY,
    SUPABASE_SECRET_KEYS = '{}',
    SUPABASE_SERVICE_ROLE_KEY,
  } = environment
  const secretKey = SUPABASE_SECRET_KEY || (defaultKey(SUPABASE_SECRET_KEYS) ?? SUPABASE_SERVICE_ROLE_KEY)
  if (!SUPABASE_URL) throw missing('SUPABASE_URL')
  if (!secretKey) throw missing('SUPABASE_SECRET_KEY, SUPABASE_SECRET_KEYS or SUPABASE_SERVICE_ROLE_KEY')
  return { url: SUPABASE_URL, secretKey }
}

function defaultKey(secretKeys: string): string | undefined {
  try {
    const { default: key } = JSON.parse(secretKeys) as { default?: string }
    return key
  } catch (cause) {
    throw new WorkerStartError('SUPABASE_SECRET_KEYS is not a JSON object of keys', { cause })
  }
}

function missing(name: string): WorkerStartError {
  return new WorkerStartError(
    `The environment has no ${name}: Edge Functions get it from Supabase, a worker elsewhere from you`,
  )
}
