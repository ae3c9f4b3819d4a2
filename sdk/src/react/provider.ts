import * as React from 'react'
import type { PgflowClient } from '../client/index.ts'

export interface PgflowProviderProps {
  readonly client: PgflowClient
  readonly children?: React.ReactNode
}

let context: React.Context<PgflowClient | null> | undefined

/**
 * Created when it is first needed: where server components run (the condition `react-server`), React has no contexts, and
 * this module can be imported there all the same. For the same reason no module here imports hooks by name.
 */
function clientContext(): React.Context<PgflowClient | null> {
  if (!('createContext' in React)) {
    throw new Error(
      "The hooks of @pgflow/sdk/react do not work in server components: put 'use client' at the top of the file.",
    )
  }
  context ??= React.createContext<PgflowClient | null>(null)
  return context
}

/**
 * Gives the client to the hooks of all components in it.
 *
 * @example
 * const client = new PgflowClient(supabase)
 * root.render(<PgflowProvider client={client}><App /></PgflowProvider>)
 */
export function PgflowProvider({ client, children }: PgflowProviderProps): React.ReactElement {
  return React.createElement(clientContext().Provider, { value: client }, children)
}

/**
 * The client of the nearest `PgflowProvider`.
 *
 * @throws Error without one
 */
export function usePgflow(): PgflowClient {
  const client = React.useContext(clientContext())
  if (client === null)
    throw new Error('There is no client here: put <PgflowProvider client={…}> around this.')
  return client
}
