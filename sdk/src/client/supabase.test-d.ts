import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import { createClient as createClient91 } from 'supabase-js-2.91'
import { createClient as createClient100 } from 'supabase-js-2.100'
import { createClient as createClient109 } from 'supabase-js-2.109'
import { describe, it } from 'vitest'
import type { Database } from './fixtures/project/database.types.ts'
import { PgflowClient } from './index.ts'

/** A project with one schema, which has these functions. */
type WithFunctions<Functions> = { public: Omit<Database['public'], 'Functions'> & { Functions: Functions } }

type NoFunctions = WithFunctions<{ [_ in never]: never }>
type EmptyFunctions = WithFunctions<Record<never, never>>
type Arguments = WithFunctions<{ find: { Args: { query: string; limit?: number }; Returns: string[] } }>
type NeverArguments = WithFunctions<{ now: { Args: never; Returns: string } }>
type EmptyArguments = WithFunctions<{ now: { Args: Record<PropertyKey, never>; Returns: string } }>
type AllArguments = WithFunctions<{
  now: { Args: never; Returns: string }
  today: { Args: Record<PropertyKey, never>; Returns: string }
  find: { Args: { query: string }; Returns: string[] } | { Args: { id: number }; Returns: string }
}>
type WithoutFunctions = { public: Omit<Database['public'], 'Functions'> }

type OneSchema = Pick<Database, 'public'>
type OtherSchema = Pick<Database, 'api'>
/** As it is generated for a project on the platform. */
type OfPlatform = { __InternalSupabase: { PostgrestVersion: '14.1' } } & Database
type WithPgflow = Database & { pgflow_public: Arguments['public'] }

describe('PgflowClient takes a client with generated types', () => {
  it('of the current supabase-js', () => {
    new PgflowClient(createClient('', ''))
    new PgflowClient(createClient<any>('', ''))
    new PgflowClient(createClient<Database>('', ''))
    new PgflowClient(createClient<Database, 'api'>('', '', { db: { schema: 'api' } }))
    new PgflowClient(createClient<Database, 'empty'>('', '', { db: { schema: 'empty' } }))
    new PgflowClient(createClient<OneSchema>('', ''))
    new PgflowClient(createClient<OtherSchema>('', ''))
    new PgflowClient(createClient<OfPlatform>('', ''))
    new PgflowClient(createClient<WithPgflow>('', ''))
    new PgflowClient(createClient<NoFunctions>('', ''))
    new PgflowClient(createClient<EmptyFunctions>('', ''))
    new PgflowClient(createClient<Arguments>('', ''))
    new PgflowClient(createClient<NeverArguments>('', ''))
    new PgflowClient(createClient<EmptyArguments>('', ''))
    new PgflowClient(createClient<AllArguments>('', ''))
    new PgflowClient(createClient<WithoutFunctions>('', ''))
    new PgflowClient({} as SupabaseClient)
    new PgflowClient({} as SupabaseClient<Database>)
    new PgflowClient({} as SupabaseClient<any, 'public', any>)
  })

  it('of supabase-js 2.109', () => {
    new PgflowClient(createClient109('', ''))
    new PgflowClient(createClient109<any>('', ''))
    new PgflowClient(createClient109<Database>('', ''))
    new PgflowClient(createClient109<Database, 'api'>('', '', { db: { schema: 'api' } }))
    new PgflowClient(createClient109<Database, 'empty'>('', '', { db: { schema: 'empty' } }))
    new PgflowClient(createClient109<OneSchema>('', ''))
    new PgflowClient(createClient109<OtherSchema>('', ''))
    new PgflowClient(createClient109<OfPlatform>('', ''))
    new PgflowClient(createClient109<WithPgflow>('', ''))
    new PgflowClient(createClient109<NoFunctions>('', ''))
    new PgflowClient(createClient109<EmptyFunctions>('', ''))
    new PgflowClient(createClient109<Arguments>('', ''))
    new PgflowClient(createClient109<NeverArguments>('', ''))
    new PgflowClient(createClient109<EmptyArguments>('', ''))
    new PgflowClient(createClient109<AllArguments>('', ''))
    new PgflowClient(createClient109<WithoutFunctions>('', ''))
  })

  it('of supabase-js 2.100', () => {
    new PgflowClient(createClient100('', ''))
    new PgflowClient(createClient100<any>('', ''))
    new PgflowClient(createClient100<Database>('', ''))
    new PgflowClient(createClient100<Database, 'api'>('', '', { db: { schema: 'api' } }))
    new PgflowClient(createClient100<Database, 'empty'>('', '', { db: { schema: 'empty' } }))
    new PgflowClient(createClient100<OneSchema>('', ''))
    new PgflowClient(createClient100<OtherSchema>('', ''))
    new PgflowClient(createClient100<OfPlatform>('', ''))
    new PgflowClient(createClient100<WithPgflow>('', ''))
    new PgflowClient(createClient100<NoFunctions>('', ''))
    new PgflowClient(createClient100<EmptyFunctions>('', ''))
    new PgflowClient(createClient100<Arguments>('', ''))
    new PgflowClient(createClient100<NeverArguments>('', ''))
    new PgflowClient(createClient100<EmptyArguments>('', ''))
    new PgflowClient(createClient100<AllArguments>('', ''))
    new PgflowClient(createClient100<WithoutFunctions>('', ''))
  })

  it('of supabase-js 2.91', () => {
    new PgflowClient(createClient91('', ''))
    new PgflowClient(createClient91<any>('', ''))
    new PgflowClient(createClient91<Database>('', ''))
    new PgflowClient(createClient91<Database, 'api'>('', '', { db: { schema: 'api' } }))
    new PgflowClient(createClient91<Database, 'empty'>('', '', { db: { schema: 'empty' } }))
    new PgflowClient(createClient91<OneSchema>('', ''))
    new PgflowClient(createClient91<OtherSchema>('', ''))
    new PgflowClient(createClient91<OfPlatform>('', ''))
    new PgflowClient(createClient91<WithPgflow>('', ''))
    new PgflowClient(createClient91<NoFunctions>('', ''))
    new PgflowClient(createClient91<EmptyFunctions>('', ''))
    new PgflowClient(createClient91<Arguments>('', ''))
    new PgflowClient(createClient91<NeverArguments>('', ''))
    new PgflowClient(createClient91<EmptyArguments>('', ''))
    new PgflowClient(createClient91<AllArguments>('', ''))
    new PgflowClient(createClient91<WithoutFunctions>('', ''))
  })

  it('but nothing else', () => {
    // @ts-expect-error: the client, not its URL
    new PgflowClient('http://localhost')
    // @ts-expect-error: the client, not its socket
    new PgflowClient(createClient('', '').realtime)
    // @ts-expect-error: there is no socket
    new PgflowClient(createClient('', '').schema('public'))
  })
})
