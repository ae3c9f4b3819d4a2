import type { SupabaseClient } from '@supabase/supabase-js'
import { useSyncExternalStore } from 'react'
import { Account } from './account.tsx'
import { RunPage } from './run-page.tsx'
import { RunTitle } from './run-title.tsx'
import { Runs } from './runs.tsx'
import { Start } from './start.tsx'

/** The run that is looked at is in the address, so that a reload and the back button find it. */
function useRunId(): [string | null, (runId: string) => void] {
  const hash = useSyncExternalStore(listenToHash, () => location.hash)
  const show = (runId: string) => {
    location.hash = runId
  }
  return [hash.slice(1) || null, show]
}

function listenToHash(changed: () => void): () => void {
  addEventListener('hashchange', changed)
  return () => removeEventListener('hashchange', changed)
}

export function App({ supabase }: { supabase: SupabaseClient }) {
  const [runId, show] = useRunId()
  return (
    <>
      <RunTitle runId={runId} />
      <header>
        <h1>Live runs</h1>
        <p>Start a flow, and watch its steps as the database moves them on.</p>
        <Account supabase={supabase} />
      </header>
      <div className="columns">
        <nav aria-label="Runs">
          <Start onStart={show} />
          <Runs shown={runId} />
        </nav>
        <main>
          {runId ? (
            <RunPage key={runId} runId={runId} onStart={show} />
          ) : (
            <p>Start a run, or choose one of yours.</p>
          )}
        </main>
      </div>
    </>
  )
}
