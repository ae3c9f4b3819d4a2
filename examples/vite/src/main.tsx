import { PgflowClient } from '@pgflow/sdk'
import { PgflowProvider } from '@pgflow/sdk/react'
import { createClient } from '@supabase/supabase-js'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import App from './App.tsx'

const { VITE_SUPABASE_URL, VITE_SUPABASE_PUBLISHABLE_KEY } = import.meta.env

const supabase = createClient(VITE_SUPABASE_URL, VITE_SUPABASE_PUBLISHABLE_KEY)
const client = new PgflowClient(supabase)

// Anonymous sign-in, so that the example needs no form. Every run has an owner, who is the signed-in user.
const { data } = await supabase.auth.getSession()
if (!data.session) await supabase.auth.signInAnonymously()

createRoot(document.querySelector('#root')!).render(
  <StrictMode>
    <PgflowProvider client={client}>
      <App />
    </PgflowProvider>
  </StrictMode>,
)
