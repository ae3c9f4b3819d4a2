'use client'

import { PgflowClient } from '@pgflow/sdk'
import { PgflowProvider } from '@pgflow/sdk/react'
import { type ReactNode, useState } from 'react'
import { createClient } from '@/lib/supabase/client'

/** A client component: a server component cannot pass a client to another component. */
export function Providers({ children }: { children: ReactNode }) {
  const [client] = useState(() => new PgflowClient(createClient()))
  return <PgflowProvider client={client}>{children}</PgflowProvider>
}
