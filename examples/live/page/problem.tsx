import type { PgflowError } from '@pgflow/sdk'

interface ProblemProps {
  title: string
  error: Error | PgflowError
  hint?: string
}

/** What went wrong, and what to do about it. */
export function Problem({ title, error, hint }: ProblemProps) {
  const advice = ('hint' in error && error.hint) || hint
  return (
    <div role="alert" className="problem">
      <strong>{title}.</strong> {error.message}
      {advice && <p>{advice}</p>}
    </div>
  )
}
