import type { PgflowError } from '@pgflow/sdk'
import { useOnline } from './online.tsx'

interface ProblemProps {
  title: string
  error: Error | PgflowError
  /** What to do, where the error does not say. */
  hint?: string
}

/** What went wrong, and what to do about it. While the browser is offline, the page says that once, and not here. */
export function Problem({ title, error, hint }: ProblemProps) {
  const online = useOnline()
  if (!online && isUnreachable(error)) return null
  const advice = ('hint' in error && error.hint) || hint
  return (
    <div role="alert" className="problem">
      <strong>{title}.</strong> {error.message}
      {advice && <p>{advice}</p>}
    </div>
  )
}

function isUnreachable(error: Error | PgflowError): boolean {
  return 'code' in error && (error.code === 'unreachable' || error.code === 'timeout')
}
