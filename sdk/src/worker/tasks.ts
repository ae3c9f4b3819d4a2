import type { Result, TaskKey } from './transport.ts'

export function keyOf({ run_id, step_slug, task_index, attempt }: TaskKey): TaskKey {
  return { run_id, step_slug, task_index, attempt }
}

/** The same text for the same attempt. */
export function idOf({ run_id, step_slug, task_index, attempt }: TaskKey): string {
  return `${run_id} ${step_slug} ${task_index} ${attempt}`
}

/** The results as a JSON array; outputs stand in it as they were written, so that nothing is parsed or encoded twice. */
export function resultsJson(results: readonly Result[]): string {
  return `[${results.map(resultJson).join(',')}]`
}

function resultJson(result: Result): string {
  if ('error' in result) return JSON.stringify(result)
  return `${JSON.stringify(keyOf(result)).slice(0, -1)},"output":${result.outputJson}}`
}

/** About how many characters a result takes on the wire. */
export function sizeOf(result: Result): number {
  return 'error' in result ? result.error.length : result.outputJson.length
}
