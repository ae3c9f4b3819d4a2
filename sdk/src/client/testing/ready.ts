import type { SupabaseClient } from '@supabase/supabase-js'

/** Resolves when the next channel of a client gets broadcasts: when the server has said that its replication runs. */
export function ready(supabase: SupabaseClient): Promise<void> {
  const channel = supabase.channel.bind(supabase)
  return new Promise((resolve) => {
    supabase.channel = (...args) =>
      channel(...args).on('system', {}, ({ status }) => {
        if (status === 'ok') resolve()
      })
  })
}
