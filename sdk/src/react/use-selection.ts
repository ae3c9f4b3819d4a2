import * as React from 'react'
import type { PgflowError, RunSnapshot } from '../client/index.ts'
import { isEqual } from './equal.ts'
import type { RunView } from './run-source.ts'
import type { RunStore } from './use-run-source.ts'

/** What was selected of a run; it is never changed, but replaced. */
export interface Selection<Selected = unknown> {
  readonly selected: Selected | null
  readonly error: PgflowError | null
}

export type Select = (run: RunSnapshot) => unknown

/** What `select` returns for the run of the store. The component renders again only when that changes. */
export function useSelection(store: RunStore, subscribe: RunStore['subscribe'], select: Select): Selection {
  const rendered = React.useRef<Selection>(undefined)
  // `select` may be another function in each rendering; what equals the latest result is the same object.
  const [view, initial] = React.useMemo(
    () => [selector(store.view, select, rendered), selector(store.initial, select, rendered)],
    [store, select],
  )
  const selection = React.useSyncExternalStore(subscribe, view, initial)
  React.useEffect(() => {
    rendered.current = selection
  })
  return selection
}

/** Selects once for each view, since React calls this often and expects the same object. */
function selector(
  view: () => RunView,
  select: Select,
  rendered: { readonly current: Selection | undefined },
): () => Selection {
  let seen: RunView | undefined
  let latest: Selection | undefined
  return () => {
    const current = view()
    if (latest !== undefined && seen === current) return latest
    const { run, error } = current
    const next: Selection = { selected: run && select(run), error }
    const former = latest ?? rendered.current
    latest = former?.error === error && isEqual(former.selected, next.selected) ? former : next
    seen = current
    return latest
  }
}
