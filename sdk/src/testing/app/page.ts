import type { PgflowClient } from '@pgflow/sdk'
import { Flow } from '@pgflow/sdk/flow'
import { PgflowProvider, useRun } from '@pgflow/sdk/react'
import { createElement, type ReactElement } from 'react'
import type { Greet, Greeted } from './flow.ts'

function Length({ runId }: { readonly runId: string }): string {
  const { run, step } = useRun<typeof Greet>(runId)
  const output: Greeted | null | undefined = run?.output
  // @ts-expect-error: there is no such step
  step('lenght')
  return `${output?.length.toFixed()}`
}

export function page(client: PgflowClient, runId: string): ReactElement {
  return createElement(PgflowProvider, { client }, createElement(Length, { runId }))
}

export async function wrongPrograms(client: PgflowClient): Promise<void> {
  // @ts-expect-error: a name is a string
  await client.startFlow<typeof Greet>('greet', { name: 1 })
  // @ts-expect-error: no step comes before
  new Flow<{ name: string }>({ slug: 'greet' }).step('length', ['greeting'], () => 1)
}
