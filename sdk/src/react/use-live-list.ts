import * as React from 'react'
import type { PgflowClient } from '../client/index.ts'
import { type ListSource, type ListView, LiveList } from './live-list.ts'
import { usePgflow } from './provider.ts'

/** The list of a component, and what it shows. The filter may be another object in each rendering. */
export function useLiveList<Row, Filter extends object>(
  filter: Filter & { readonly limit?: number },
  enabled: boolean,
  sourceOf: (client: PgflowClient, filter: Filter) => ListSource<Row>,
): readonly [list: LiveList<Row>, view: ListView<Row>] {
  const client = usePgflow()
  const key = JSON.stringify(filter)
  const list = React.useMemo(() => {
    const { limit, ...others } = JSON.parse(key) as typeof filter // as it was written
    return new LiveList(client, sourceOf(client, others as Filter), limit)
  }, [client, key, sourceOf])
  const subscribe = enabled ? list.subscribe : list.subscribeIdle
  return [list, React.useSyncExternalStore(subscribe, list.view, list.initial)]
}
