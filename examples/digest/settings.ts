import type { PgflowClient } from '@pgflow/sdk'
import { PgflowSchedules, type ScheduleRow } from '@pgflow/sdk/schedules'
import type { Digest } from './digest.ts'

type Client = PgflowClient<{ digest: typeof Digest }>

/** What the user chooses in the settings of the app. */
export interface DigestSettings {
  readonly topics: string[]
  /** At this hour of the user's day. */
  readonly hour: number
  readonly days: 'daily' | 'mon-fri'
}

/** Saves the settings: the user's one digest, in the time zone of the browser. */
export function saveDigest(
  client: Client,
  { topics, hour, days }: DigestSettings,
  { timeZone } = Intl.DateTimeFormat().resolvedOptions(),
): Promise<ScheduleRow<{ topics: string[] }>> {
  const cron = `0 ${hour} * * ${days === 'daily' ? '*' : days}` as const
  return new PgflowSchedules(client).set('digest', { topics }, { cron, timeZone })
}

/** The digests that the user has got so far, the newest first. */
export async function digestsOf(client: Client): Promise<readonly string[]> {
  const { runs } = await client.listRuns({ flowSlug: 'digest', status: 'completed' })
  return runs.flatMap(({ output }) => (output?.text === undefined ? [] : [output.text]))
}
