import { definitionOf } from '../flow/compile.ts'
import type { Json } from '../flow/json-types.ts'
import { nameErrors, PgflowError } from '../shared/errors.ts'
import { schemaVersion as neededVersion } from '../shared/schema-version.ts'
import { codeOf } from './faults.ts'
import type { ProjectConnection } from './options.ts'
import { resultsJson } from './tasks.ts'
import type { Transport, Work } from './transport.ts'

/** Milliseconds after which a call counts as lost. */
const patience = 30_000

/** What PostgREST, or the gateway before it, refused. `code` is the SQLSTATE, a code of PostgREST's own, or `http_<status>`. */
export class RpcError extends PgflowError {
  static {
    nameErrors(RpcError, 'RpcError')
  }

  constructor(status: number, { code, message, details, hint }: Partial<Record<string, string>>) {
    // Asking again cannot help: as the database says of a value that is too large.
    const known = status === 413 ? '54000' : code
    super(known ?? `http_${status}`, message ?? `HTTP status ${status}`, { status, details, hint })
  }
}

/** How a function of a schema is called. */
export function requestOf({ url, secretKey }: ProjectConnection, name: string, schema = 'pgflow_worker') {
  const headers = {
    'content-type': 'application/json',
    'content-profile': schema,
    apikey: secretKey,
    // The older keys are JWTs, which name the role; the new ones are not, and are refused here.
    ...(!secretKey.startsWith('sb_') && { authorization: `Bearer ${secretKey}` }),
  }
  return { url: `${url.replace(/\/+$/, '')}/rest/v1/rpc/${name}`, headers }
}

/** Calls the functions of `pgflow_worker` through PostgREST, so that no password of the database is needed. */
export function openRpcTransport(project: ProjectConnection): Transport {
  const closing = new AbortController()

  /** Answers with JSON text; the empty text is that of a function that returns nothing. */
  async function call(name: string, body: string, schema?: string): Promise<string> {
    const signal = AbortSignal.any([closing.signal, AbortSignal.timeout(patience)])
    const { url, headers } = requestOf(project, name, schema)
    const response = await fetch(url, { method: 'POST', headers, body, signal })
    const text = await response.text()
    if (!response.ok) throw new RpcError(response.status, errorOf(text))
    return text
  }

  /** The type is what the called function returns: see its definition in the migrations. */
  async function answer<Answer>(name: string, given: object): Promise<Answer> {
    return JSON.parse(await call(name, JSON.stringify(given))) as Answer
  }

  async function tell(name: string, given: object): Promise<void> {
    await call(name, JSON.stringify(given))
  }

  async function schemaVersion(): Promise<number | undefined> {
    try {
      return await answer<number>('schema_version', {})
    } catch (error) {
      if (isMissing(error)) return undefined
      // Older migrations have no such schema, which can be exposed only once it is there.
      const older = codeOf(error) === 'PGRST106' ? await publicVersion().catch(() => undefined) : undefined
      if (older !== undefined && older < neededVersion) return older
      throw error
    }
  }

  async function publicVersion(): Promise<number> {
    return JSON.parse(await call('schema_version', '{}', 'pgflow_public')) as number
  }

  return {
    schemaVersion,
    defineFlow: (flow) => tell('register_flow', { definition: definitionOf(flow) }),
    registerWorker: (worker) => tell('register_worker', worker),
    async settleAndClaim({ results, waiting: _, lane: __, apart: ___, due: ____, ...request }) {
      const given = `{"results":${resultsJson(results)},${JSON.stringify(request).slice(1)}`
      return JSON.parse(await call('settle_and_claim', given)) as Work
    },
    heartbeat: (worker_id, tasks, lease) => answer('heartbeat', { worker_id, tasks, lease }),
    tick: () => answer('tick', {}),
    callFunctions: () => answer('call_functions', {}),
    handBack: (tasks) => tell('hand_back', { tasks }),
    reportProgress: (reports) => answer('report_progress', { reports }),
    fetchValue: (ref) => call('fetch_value', JSON.stringify(ref)),
    async keepResult({ valueJson, ...result }) {
      const given = `{"value":${valueJson},${JSON.stringify(result).slice(1)}`
      return JSON.parse(await call('keep_result', given)) as Json
    },
    keptResultsOf: ({ run_id, step_slug, task_index }) =>
      answer('kept_results_of', { run_id, step_slug, task_index }),
    stopWorker: (worker_id) => tell('stop_worker', { worker_id }),
    async completeWait({ outputJson, run_id, step_slug }) {
      const given = `{"output":${outputJson},${JSON.stringify({ run_id, step_slug }).slice(1)}`
      await call('complete_wait', given, 'pgflow_public')
    },
    close: async () => closing.abort(),
  }
}

/** Whether the error says that there is no such function or schema. */
function isMissing(error: unknown): boolean {
  return ['PGRST202', '42883', '3F000'].includes(codeOf(error) ?? '')
}

/** A gateway's own refusals are not always JSON. */
function errorOf(text: string): Partial<Record<string, string>> {
  try {
    const body: unknown = JSON.parse(text)
    return typeof body === 'object' && body !== null ? body : { message: text }
  } catch {
    return { message: text.slice(0, 200) }
  }
}
