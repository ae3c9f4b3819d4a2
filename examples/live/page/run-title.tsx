import type { RunSnapshot } from '@pgflow/sdk'
import { useRun } from '@pgflow/sdk/react'
import type { ReadDocument } from '../flow.ts'

/** The title of the page; it is rendered again only when the document or the status changes. */
export function RunTitle({ runId }: { runId: string | null }) {
  const { selected } = useRun(runId, {
    select: ({ parent_run_id, flow_slug, input, status }: RunSnapshot<typeof ReadDocument>) =>
      `${parent_run_id ? flow_slug : input.document}, ${status} – `,
  })
  return <title>{`${selected ?? ''}Live runs – pgflow for Supabase`}</title>
}
