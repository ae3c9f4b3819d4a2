import { NotFoundError, PgflowClient } from '@pgflow/sdk'
import { notFound } from 'next/navigation'
import { Suspense } from 'react'
import { createClient } from '@/lib/supabase/server'
import type { AnalyzeText } from '@/supabase/functions/flow-worker/flows'
import { RunView } from './run-view'

type Props = PageProps<'/runs/[runId]'>

export default function RunPage({ params }: Props) {
  return (
    <Suspense fallback={<p>Loading the run …</p>}>
      <LoadedRun params={params} />
    </Suspense>
  )
}

/** A server component: it reads the run as the user who asks, and passes it to a client component that follows it. */
async function LoadedRun({ params }: Pick<Props, 'params'>) {
  const { runId } = await params
  const client = new PgflowClient(await createClient())
  const run = await client.getRun<typeof AnalyzeText>(runId).catch((error: unknown) => {
    if (error instanceof NotFoundError) notFound()
    throw error
  })
  return <RunView initialRun={run.snapshot} />
}
