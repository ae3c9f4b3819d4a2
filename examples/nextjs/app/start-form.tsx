'use client'

import { useActionState } from 'react'
import { analyze } from './actions'

export function StartForm() {
  const [error, start, isPending] = useActionState(analyze, null)
  return (
    <form action={start}>
      <input aria-label="Text" name="text" defaultValue="The database decides" />
      <button type="submit" disabled={isPending}>
        Analyze
      </button>
      {error && <p role="alert">{error}</p>}
    </form>
  )
}
