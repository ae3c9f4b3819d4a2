export { LocalSupabaseError } from './errors.ts'
export type { Realtime, RealtimeSettings, RealtimeStartSettings } from './realtime/index.ts'
export { type LocalSupabase, type LocalSupabaseOptions, startLocalSupabase } from './stack.ts'
export { type Claims, TokenError, type TokenProblem } from './tokens.ts'
