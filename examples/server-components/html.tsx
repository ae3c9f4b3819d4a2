import { createFromReadableStream, getClientEntryUrl } from '@vitejs/plugin-rsc/ssr'
import type { ReactNode } from 'react'
import { renderToReadableStream } from 'react-dom/server.edge'

/** Renders the page: its server components as they were serialised, and the client components in it. */
export async function renderHtml(page: ReadableStream<Uint8Array>): Promise<ReadableStream<Uint8Array>> {
  const root = await createFromReadableStream<ReactNode>(page)
  return renderToReadableStream(root, { bootstrapModules: [getClientEntryUrl()] })
}
