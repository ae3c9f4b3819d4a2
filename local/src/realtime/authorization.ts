import { randomUUID } from 'node:crypto'
import pg from 'pg'
import type { Claims } from '../tokens.ts'
import type { Session } from './session.ts'

/** Who asks, as the policies on `realtime.messages` see it. */
export interface Identity {
  claims: Claims
  /** The upgrade request's headers that begin with `x-`. */
  headers: Record<string, string>
}

/**
 * - `allowed`, `denied`: what the policies say; one that raises denies, and so does an unknown role
 * - `no-partition`: today's partition of `realtime.messages` does not exist
 * - `unreachable`: the database did not answer
 */
export type ReadPermission = 'allowed' | 'denied' | 'no-partition' | 'unreachable'

const NO_PARTITION = '23514'
/** Class of SQLSTATEs: a topic that cannot be text of the database, with a NUL for instance. */
const DATA_EXCEPTION = '22'

/**
 * Whether `identity` may read broadcasts on a private topic: a probe row is inserted, looked for under the
 * role and the claims of the token, and rolled back.
 */
export async function readPermission(
  session: Session,
  topic: string,
  identity: Identity,
  log: (line: string) => void,
): Promise<ReadPermission> {
  try {
    return await session.run((client) => probe(client, topic, identity))
  } catch (error) {
    log(`${error instanceof PolicyError ? 'RlsPolicyError' : 'UnableToAuthorize'}: ${error}`)
    if (error instanceof PolicyError) return 'denied'
    const code = error instanceof pg.DatabaseError ? error.code : undefined
    if (code?.startsWith(DATA_EXCEPTION)) return 'denied'
    return code === NO_PARTITION ? 'no-partition' : 'unreachable'
  }
}

/** A policy raised, or the role does not exist. */
class PolicyError extends Error {}

async function probe(client: pg.Client, topic: string, identity: Identity): Promise<ReadPermission> {
  const id = randomUUID()
  await client.query('begin')
  try {
    await client.query(
      `insert into realtime.messages (id, topic, extension, inserted_at, updated_at)
       values ($1, $2, 'broadcast', now() at time zone 'utc', now() at time zone 'utc')`,
      [id, topic],
    )
    return await isVisible(client, id, topic, identity)
  } finally {
    await client.query('rollback')
  }
}

async function isVisible(
  client: pg.Client,
  id: string,
  topic: string,
  { claims, headers }: Identity,
): Promise<ReadPermission> {
  try {
    await client.query(
      `select set_config('role', $1, true), set_config('realtime.topic', $2, true),
              set_config('request.jwt.claims', $3, true), set_config('request.jwt.claim.sub', $4, true),
              set_config('request.jwt.claim.role', $1, true), set_config('request.headers', $5, true)`,
      [claims.role, topic, JSON.stringify(claims), claims.sub ?? null, JSON.stringify(headers)],
    )
    // A role that is null or 'none' leaves the superuser's.
    const { rowCount } = await client.query(
      'select id from realtime.messages where id = $1 and current_user = $2',
      [id, claims.role],
    )
    return rowCount === 1 ? 'allowed' : 'denied'
  } catch (error) {
    if (!(error instanceof pg.DatabaseError) || error.severity !== 'ERROR') throw error
    throw new PolicyError(error.message)
  }
}
