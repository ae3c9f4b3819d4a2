import type { SupabaseClient } from '@supabase/supabase-js'
import { useEffect, useState } from 'react'
import { useOnline } from './online.tsx'
import { Problem } from './problem.tsx'

/** The id of the signed-in user; `null` when signed out, `undefined` until it is known. */
export function useUser({ auth }: SupabaseClient): string | null | undefined {
  const [user, setUser] = useState<string | null>()
  useEffect(() => {
    const { data } = auth.onAuthStateChange((_, session) => setUser(session?.user.id ?? null))
    return () => data.subscription.unsubscribe()
  }, [auth])
  return user
}

interface AccountProps {
  supabase: SupabaseClient
  user: string | null | undefined
}

/** Who is signed in. */
export function Account({ supabase: { auth }, user }: AccountProps) {
  const online = useOnline()
  if (!user) return <p className="account">{user === null && 'Signed out'}</p>
  return (
    <p className="account">
      <span>
        Visitor <code>{user.slice(0, 8)}</code>
      </span>
      <button type="button" className="button" onClick={() => auth.signOut()} disabled={!online}>
        Sign out
      </button>
    </p>
  )
}

interface SignedOutProps {
  supabase: SupabaseClient
  onSignedIn: () => void
}

/** What a visitor sees after signing out: nothing of what the former user has read. */
export function SignedOut({ supabase: { auth }, onSignedIn }: SignedOutProps) {
  const online = useOnline()
  const [error, setError] = useState<Error | null>(null)

  async function signIn() {
    const { error } = await auth.signInAnonymously()
    setError(error)
    if (!error) onSignedIn()
  }

  return (
    <section className="card empty" aria-labelledby="signed-out">
      <h2 id="signed-out">You are signed out</h2>
      <p>
        A run belongs to the user who started it. Row level security hides it from everybody else, and the
        page keeps nothing of it.
      </p>
      <button type="button" className="button primary" onClick={signIn} disabled={!online}>
        Sign in as a new visitor
      </button>
      {error && <Problem title="You could not be signed in" error={error} hint="Try again." />}
    </section>
  )
}
