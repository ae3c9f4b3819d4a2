import { fileURLToPath } from 'node:url'
import { shapeOf } from '@pgflow/sdk/flow'
import react from '@vitejs/plugin-react'
import { defaultClientConditions, type InlineConfig } from 'vite'
import { ReadDocument } from './flow.ts'

export interface PageOptions {
  /** Of the Supabase project. */
  readonly url: string
  readonly publishableKey: string
}

/**
 * How Vite builds and serves the page. Of a flow, the page needs its type and its shape; the handlers, which run in the
 * worker, stay outside.
 */
export function pageConfig({ url, publishableKey }: PageOptions): InlineConfig {
  return {
    configFile: false,
    root: fileURLToPath(new URL('page', import.meta.url)),
    plugins: [react()],
    resolve: { conditions: ['pgflow-source', ...defaultClientConditions] },
    define: {
      'import.meta.env.SUPABASE_URL': JSON.stringify(url),
      'import.meta.env.SUPABASE_KEY': JSON.stringify(publishableKey),
      'import.meta.env.FLOW_SHAPE': JSON.stringify(shapeOf(ReadDocument)),
    },
  }
}
