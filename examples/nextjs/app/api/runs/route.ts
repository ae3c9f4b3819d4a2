import { PgflowClient, PgflowError } from '@pgflow/sdk'
import { createClient } from '@/lib/supabase/server'
import type { AnalyzeText } from '@/supabase/functions/flow-worker/flows'

/** Starts a run as the signed-in user: `POST /api/runs` with `{"text": "…"}`. */
export async function POST(request: Request): Promise<Response> {
  const { text } = await request.json()
  if (typeof text !== 'string') return Response.json({ message: 'text is missing' }, { status: 400 })
  const client = new PgflowClient(await createClient())
  try {
    const run = await client.startFlow<typeof AnalyzeText>('analyze_text', { text })
    return Response.json({ runId: run.runId }, { status: 202 })
  } catch (error) {
    if (!(error instanceof PgflowError)) throw error
    const { code, message, hint } = error
    return Response.json({ code, message, hint }, { status: error.status ?? 500 })
  }
}
