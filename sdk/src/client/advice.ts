import { schemaProblem } from '../shared/schema-version.ts'
import type { RpcResponse } from './supabase.ts'

const expose =
  "Expose the schema: add 'pgflow_public' to the exposed schemas in the API settings, or to [api] schemas in config.toml."

const reload =
  "The API has not noticed the migrations yet. Run `notify pgrst, 'reload schema'` in SQL, or restart the project."

/** What to do about a project that is not set up for this package; loaded only when the server says so. */
export async function adviceOn(code: string, askVersion: () => PromiseLike<RpcResponse>): Promise<string> {
  if (code === 'unauthorized') return 'Check the key of the project.'
  if (code === 'PGRST106') return expose
  const { data, error } = await askVersion()
  if (error?.code === 'PGRST106') return expose
  return schemaProblem(typeof data === 'number' ? data : undefined) ?? reload
}
