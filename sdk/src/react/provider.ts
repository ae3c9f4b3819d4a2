import { createContext, createElement, type ReactElement, type ReactNode, useContext } from 'react'
import type { PgflowClient } from '../client/index.ts'

const Context = createContext<PgflowClient | null>(null)

export interface PgflowProviderProps {
  readonly client: PgflowClient
  readonly children?: ReactNode
}

/**
 * Gives the client to the hooks of all components in it.
 *
 * @example
 * const client = new PgflowClient(supabase)
 * root.render(<PgflowProvider client={client}><App /></PgflowProvider>)
 */
export function PgflowProvider({ client, children }: PgflowProviderProps): ReactElement {
  return createElement(Context.Provider, { value: client }, children)
}

/**
 * The client of the nearest `PgflowProvider`.
 *
 * @throws Error without one
 */
export function usePgflow(): PgflowClient {
  const client = useContext(Context)
  if (client === null)
    throw new Error('There is no client here: put <PgflowProvider client={…}> around this.')
  return client
}
