import { PgflowClient } from '@pgflow/sdk'
import { PgflowProvider } from '@pgflow/sdk/react'
import { createClient } from '@supabase/supabase-js'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { App } from './app.tsx'
import { SignedIn } from './signed-in.tsx'
import './style.css'

const supabase = createClient(import.meta.env.SUPABASE_URL, import.meta.env.SUPABASE_KEY)
const client = new PgflowClient(supabase)

createRoot(document.querySelector('#root')!).render(
  <StrictMode>
    <PgflowProvider client={client}>
      <SignedIn supabase={supabase}>
        <App supabase={supabase} />
      </SignedIn>
    </PgflowProvider>
  </StrictMode>,
)
