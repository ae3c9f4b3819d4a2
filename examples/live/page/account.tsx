import type { SupabaseClient } from '@supabase/supabase-js'
import { useEffect, useState } from 'react'

/** Who is signed in; the page's hooks forget what a user has read as soon as another one is. */
export function Account({ supabase }: { supabase: SupabaseClient }) {
  const { auth } = supabase
  const [user, setUser] = useState<string | null>(null)

  useEffect(() => {
    const { data } = auth.onAuthStateChange((_, session) => setUser(session?.user.id ?? null))
    return () => data.subscription.unsubscribe()
  }, [auth])

  return (
    <p className="account">
      {user ? `Visitor ${user.slice(0, 8)}` : 'Signed out'}
      <button type="button" onClick={() => (user ? auth.signOut() : auth.signInAnonymously())}>
        {user ? 'Sign out' : 'Sign in as somebody else'}
      </button>
    </p>
  )
}
