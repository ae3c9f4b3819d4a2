import { fileURLToPath } from 'node:url'
import { type LocalSupabase, type LocalSupabaseOptions, startLocalSupabase } from '@pgflow/local'
import type { ResourcesOf } from '@pgflow/sdk/flow'
import { startWorker, type Worker } from '@pgflow/sdk/worker'
import { ReadDocument } from './flow.ts'

/** A local stack with what the page needs, and the waits and limits of the platform. */
export function startStack(options: LocalSupabaseOptions = {}): Promise<LocalSupabase> {
  const migrations = fileURLToPath(new URL('../../supabase/migrations', import.meta.url))
  return startLocalSupabase({ realtime: { realistic: true }, ...options, migrations: [migrations] })
}

export type Pause = ResourcesOf<typeof ReadDocument>['pause']

/** A worker for the page's flow, to be stopped before the stack. */
export function startPageWorker({ dbUrl }: LocalSupabase, pause: Pause): Promise<Worker> {
  return startWorker({ connection: dbUrl, flows: [ReadDocument], resources: { pause }, concurrency: 8 })
}
