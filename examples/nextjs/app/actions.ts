'use server'

import { PgflowClient, PgflowError } from '@pgflow/sdk'
import { redirect } from 'next/navigation'
import { createClient } from '@/lib/supabase/server'
import type { AnalyzeText } from '@/supabase/functions/flow-worker/flows'

/** Starts a run as the signed-in user and shows it; returns what to tell the user if it cannot be started. */
export async function analyze(_previous: string | null, form: FormData): Promise<string | null> {
  const client = new PgflowClient(await createClient())
  let runId: string
  try {
    const input = { text: String(form.get('text')) }
    const run = await client.startFlow<typeof AnalyzeText>('analyze_text', input)
    runId = run.runId
  } catch (error) {
    if (error instanceof PgflowError) return `${error.message} ${error.hint ?? ''}`
    throw error
  }
  redirect(`/runs/${runId}`) // outside of the try block, since it throws
}
