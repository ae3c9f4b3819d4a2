/// <reference types="vite/client" />

interface ImportMetaEnv {
  readonly SUPABASE_URL: string
  readonly SUPABASE_KEY: string
  readonly FLOW_SHAPE: import('@pgflow/sdk/flow').FlowShape
}
