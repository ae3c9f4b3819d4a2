import type { SupabaseClient } from '@supabase/supabase-js'
import { useSyncExternalStore } from 'react'
import { Account, SignedOut, useUser } from './account.tsx'
import { FlowPreview } from './flow-preview.tsx'
import { Inbox } from './inbox.tsx'
import { OfflineNotice } from './online.tsx'
import { RunPage } from './run-page.tsx'
import { RunTitle } from './run-title.tsx'
import { Runs } from './runs.tsx'
import { Start } from './start.tsx'

/** The id of the shown run is in the address, so that a reload and the back button find it. */
function useRunId(): [string | null, (runId: string | null) => void] {
  const hash = useSyncExternalStore(listenToHash, () => location.hash)
  const show = (runId: string | null) => {
    location.hash = runId ?? ''
  }
  return [hash.slice(1) || null, show]
}

function listenToHash(changed: () => void): () => void {
  addEventListener('hashchange', changed)
  return () => removeEventListener('hashchange', changed)
}

export function App({ supabase }: { supabase: SupabaseClient }) {
  const [runId, show] = useRunId()
  const user = useUser(supabase)
  return (
    <>
      <RunTitle runId={user === null ? null : runId} />
      <header className="page-header">
        <div>
          <h1>Live runs</h1>
          <p>Start a flow and watch each step as it happens in your database.</p>
        </div>
        <Account supabase={supabase} user={user} />
      </header>
      <OfflineNotice />
      {user === null ? (
        <main>
          <SignedOut supabase={supabase} onSignedIn={() => show(null)} />
        </main>
      ) : (
        <div className="workspace">
          <Start onStart={show} />
          <Inbox />
          <main>{runId ? <RunPage key={runId} runId={runId} onStart={show} /> : <FlowPreview />}</main>
          <Runs shown={runId} />
        </div>
      )}
    </>
  )
}
