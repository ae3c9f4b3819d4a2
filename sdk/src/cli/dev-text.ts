import type { Environment } from './environment.ts'
import type { LocalStack } from './local-stack.ts'

/** What an app of the project needs to know of a stack. */
export function linesOfStack(stack: LocalStack, folder: string, packages: readonly string[]): string[] {
  const names = ['next', 'vite'].filter((name) => packages.includes(name))
  const variables = {
    ...((names.length === 0 || names.includes('next')) && publicVariables('NEXT_PUBLIC_', stack)),
    ...((names.length === 0 || names.includes('vite')) && publicVariables('VITE_', stack)),
    SUPABASE_SECRET_KEY: stack.secretKey,
    DATABASE_URL: stack.dbUrl,
  }
  return [
    '',
    `  URL              ${stack.url}`,
    `  publishable key  ${stack.publishableKey}`,
    `  secret key       ${stack.secretKey}`,
    `  anon key         ${stack.anonKey}`,
    `  database         ${stack.dbUrl}`,
    `  data             ${folder} (kept; --reset empties it)`,
    '',
    'For .env.local:',
    '',
    ...Object.entries(variables).map(([name, value]) => `${name}=${value}`),
    '',
  ]
}

function publicVariables(prefix: string, { url, publishableKey }: LocalStack) {
  return { [`${prefix}SUPABASE_URL`]: url, [`${prefix}SUPABASE_PUBLISHABLE_KEY`]: publishableKey }
}

/** As Supabase sets it for Edge Functions, so that no handler reaches the project that a `.env` file names. */
export function localEnvironment(stack: LocalStack): Environment {
  return {
    ...publicVariables('NEXT_PUBLIC_', stack),
    ...publicVariables('VITE_', stack),
    SUPABASE_URL: stack.url,
    SUPABASE_ANON_KEY: stack.anonKey,
    SUPABASE_PUBLISHABLE_KEY: stack.publishableKey,
    SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ default: stack.publishableKey }),
    SUPABASE_SERVICE_ROLE_KEY: stack.serviceRoleKey,
    SUPABASE_SECRET_KEY: stack.secretKey,
    SUPABASE_SECRET_KEYS: JSON.stringify({ default: stack.secretKey }),
    SUPABASE_DB_URL: stack.dbUrl,
    DATABASE_URL: stack.dbUrl,
  }
}
