import type { ResponseError } from './errors.ts'

/**
 * What this package needs of a supabase-js client. It is described by its shape, because the classes of two minor
 * versions are different types to the compiler. A client with generated types takes only the names of its own database,
 * and older versions know fewer options of channels; parameters of type `never` accept them all.
 */
export interface SupabaseLike {
  schema(name: never): { rpc(name: never, args: never): RpcLike }
  channel(topic: string, options: never): ChannelLike
  removeChannel(channel: never): Promise<unknown>
  readonly realtime: RealtimeLike
  /** Throws whatever is asked of it where the client has the option `accessToken`. */
  readonly auth?: AuthLike
}

export interface AuthLike {
  onAuthStateChange(callback: (event: string, session: { user: { id: string } } | null) => void): unknown
}

export interface RpcLike extends PromiseLike<RpcResponse> {
  abortSignal(signal: AbortSignal): PromiseLike<RpcResponse>
}

export interface RpcResponse {
  data: unknown
  error: ResponseError | null
  status: number
}

export interface ChannelOptions {
  config: { private: boolean; broadcast: { replication_ready: boolean } }
}

export interface ChannelLike {
  on(type: 'broadcast', filter: { event: string }, callback: (message: BroadcastMessage) => void): ChannelLike
  on(type: 'system', filter: object, callback: (message: { status?: string }) => void): ChannelLike
  subscribe(callback: (status: string, error?: Error) => void): ChannelLike
}

export interface BroadcastMessage {
  payload?: unknown
}

export interface RealtimeLike {
  setAuth(token?: string | null): Promise<void>
  getChannels(): readonly unknown[]
  connect(): void
  disconnect(): unknown
  /** The user's token, or the key of the project where nobody is signed in. */
  readonly accessToken?: (() => Promise<string | null>) | null
}
