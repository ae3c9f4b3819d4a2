import { renderToReadableStream } from '@vitejs/plugin-rsc/rsc'
import { Page } from './app/page.tsx'

/** The Supabase project. */
export interface Project {
  readonly url: string
  readonly publishableKey: string
}

/**
 * Answers with the page of a run: `/<run id>` as HTML, `/<run id>.rsc` as what React in the browser hydrates it with. The
 * user's access token is the cookie `token`.
 */
export async function respond(request: Request, project: Project): Promise<Response> {
  const [, runId, format] = /^\/([^.]+)(\.rsc)?$/.exec(new URL(request.url).pathname)!
  const accessToken = /token=([^;]+)/.exec(request.headers.get('cookie') ?? '')![1]!
  const page = renderToReadableStream(<Page project={project} runId={runId!} accessToken={accessToken} />)
  if (format) return new Response(page, { headers: { 'content-type': 'text/x-component' } })
  const { renderHtml } = await import.meta.viteRsc.loadModule<typeof import('./html.tsx')>('ssr', 'index')
  return new Response(await renderHtml(page), { headers: { 'content-type': 'text/html' } })
}
