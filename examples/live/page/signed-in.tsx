import { isAuthRetryableFetchError, type SupabaseClient } from '@supabase/supabase-js'
import { type ReactNode, useEffect, useState } from 'react'
import { Problem } from './problem.tsx'

/** Signs the visitor in, as somebody without a name, and keeps the session for the next visit. */
async function signIn({ auth }: SupabaseClient): Promise<Error | null> {
  if (await hasSession(auth)) return null
  const { error } = await auth.signInAnonymously()
  return error
}

/** Whether there is a session, of this project: each start of the local stack is another one. */
async function hasSession(auth: SupabaseClient['auth']): Promise<boolean> {
  const { data } = await auth.getSession()
  if (!data.session) return false
  const { error } = await auth.getUser()
  return error === null || isAuthRetryableFetchError(error)
}

// React may mount a component twice; nobody is signed in twice.
let signingIn: Promise<Error | null> | undefined

/** Shows its children to signed-in users. */
export function SignedIn({ supabase, children }: { supabase: SupabaseClient; children: ReactNode }) {
  const [signedIn, setSignedIn] = useState(false)
  const [error, setError] = useState<Error | null>(null)

  useEffect(() => {
    signingIn ??= signIn(supabase)
    void signingIn.then((failure) => {
      setError(failure)
      setSignedIn(failure === null)
    })
  }, [supabase])

  if (signedIn) return children
  if (error)
    return <Problem title="You could not be signed in" error={error} hint="Reload the page to try again." />
  return (
    <p role="status" className="quiet">
      Signing in …
    </p>
  )
}
