import { useSyncExternalStore } from 'react'

/** Whether the browser has a network. */
export function useOnline(): boolean {
  return useSyncExternalStore(listen, () => navigator.onLine)
}

function listen(changed: () => void): () => void {
  addEventListener('online', changed)
  addEventListener('offline', changed)
  return () => {
    removeEventListener('online', changed)
    removeEventListener('offline', changed)
  }
}

/** Says once that there is no network. Screen readers announce what appears in a region that was there before. */
export function OfflineNotice() {
  const online = useOnline()
  return (
    <div role="status">
      {!online && (
        <p className="notice">
          <strong>You are offline.</strong> The page shows the latest state that it knows, and catches up when
          you are back. Your runs continue.
        </p>
      )}
    </div>
  )
}
