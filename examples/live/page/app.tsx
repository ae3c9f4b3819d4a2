import { useSyncExternalStore } from 'react'
import { RunPage } from './run-page.tsx'
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

export function App() {
  const [runId, show] = useRunId()
  return (
    <>
      <header>
        <h1>Live runs</h1>
        <p>Start a flow, and watch its steps as the database moves them on.</p>
      </header>
      <div className="columns">
        <nav aria-label="Runs">
          <Start onStart={show} />
          <Runs shown={runId} />
        </nav>
        <main>
          {runId ? <RunPage key={runId} runId={runId} /> : <p>Start a run, or choose one of yours.</p>}
        </main>
      </div>
    </>
  )
}
