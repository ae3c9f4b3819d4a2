import { getRun } from '../client/api.ts'
import type { Live } from '../client/live.ts'
import type { Lives } from '../client/lives.ts'

/** Milliseconds; who asks for a run later than this after a request for it makes another one. */
const sharedFor = 1000

interface Fetching {
  readonly live: Promise<Live>
  readonly since: number
  /** How often the user had changed: what a former user has asked for is not shared. */
  readonly userChanges: number
}

const fetchingOf = new WeakMap<Lives, Map<string, Fetching>>()

/** The run, asked for once by all components that want it at the same time. A request that hangs is not shared any more. */
export function fetchRun(lives: Lives, runId: string): Promise<Live> {
  const fetching = fetchingOf.get(lives) ?? new Map<string, Fetching>()
  fetchingOf.set(lives, fetching)
  const { userChanges } = lives
  const known = fetching.get(runId)
  if (known?.userChanges === userChanges && Date.now() - known.since < sharedFor) return known.live
  const live = getRun(lives.connection, runId)
    .then((snapshot) => lives.adopt(snapshot))
    .finally(() => {
      if (fetching.get(runId)?.live === live) fetching.delete(runId)
    })
  fetching.set(runId, { live, since: Date.now(), userChanges })
  return live
}
