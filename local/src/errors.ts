/** What keeps the local stack from starting, and how to go on; `cause` has the technical detail. */
export class LocalSupabaseError extends Error {
  override readonly name = 'LocalSupabaseError'
}

/** The text of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
