import { PgflowClient } from '@pgflow/sdk'
import Link from 'next/link'
import { Suspense } from 'react'
import { createClient } from '@/lib/supabase/server'
import type { AnalyzeText } from '@/supabase/functions/flow-worker/flows'
import { StartForm } from './start-form'

export default function Home() {
  return (
    <main>
      <h1>Analyze a text</h1>
      <StartForm />
      <Suspense fallback={<p>Loading your runs …</p>}>
        <Runs />
      </Suspense>
    </main>
  )
}

/** A server component: it lists the runs of the user who asks for the page. */
async function Runs() {
  const client = new PgflowClient(await createClient())
  const { runs } = await client.listRuns<typeof AnalyzeText>({ flowSlug: 'analyze_text', limit: 10 })
  return (
    <ol aria-label="Your runs">
      {runs.map((run) => (
        <li key={run.run_id}>
          <Link href={`/runs/${run.run_id}`}>{run.input.text}</Link>: {run.status}
        </li>
      ))}
    </ol>
  )
}
