'use client'

import { PgflowClient } from '@pgflow/sdk'
import { PgflowProvider } from '@pgflow/sdk/react'
import { createClient } from '@supabase/supabase-js'
import { type ReactNode, useState } from 'react'
import type { Project } from '../server.tsx'

interface ProvidersProps {
  readonly project: Project
  readonly accessToken: string
  readonly children: ReactNode
}

/** A client component: the page's own client lives as long as the page. Clients cannot come from server components. */
export function Providers({ project, accessToken, children }: ProvidersProps) {
  const [client] = useState(() => {
    const options = { accessToken: async () => accessToken }
    return new PgflowClient(createClient(project.url, project.publishableKey, options))
  })
  return <PgflowProvider client={client}>{children}</PgflowProvider>
}
