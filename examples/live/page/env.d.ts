interface ImportMeta {
  readonly env: {
    readonly SUPABASE_URL: string
    readonly SUPABASE_KEY: string
    readonly FLOW_SHAPES: import('@pgflow/sdk/flow').FlowShape[]
  }
}

declare module '*.css'
