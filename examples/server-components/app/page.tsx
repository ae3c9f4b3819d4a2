import { PgflowClient } from '@pgflow/sdk'
import { createClient } from '@supabase/supabase-js'
import type { ReadDocument } from '../../live/flow.ts'
import type { Project } from '../server.tsx'
import { Providers } from './providers.tsx'
import { RunView } from './run-view.tsx'

interface PageProps {
  readonly project: Project
  readonly runId: string
  /** Of the user who asks for the page. */
  readonly accessToken: string
}

/** A server component: it reads the run as the user who asks, with a client of this request alone. */
export async function Page({ project, runId, accessToken }: PageProps) {
  const supabase = createClient(project.url, project.publishableKey, { accessToken: async () => accessToken })
  const { snapshot } = await new PgflowClient(supabase).getRun<typeof ReadDocument>(runId)
  return (
    <html lang="en">
      <head>
        <title>{snapshot.input.document}</title>
        <link rel="icon" href="data:," />
      </head>
      <body>
        <h1>{snapshot.input.document}</h1>
        <Providers project={project} accessToken={accessToken}>
          <RunView initialRun={snapshot} />
        </Providers>
      </body>
    </html>
  )
}
