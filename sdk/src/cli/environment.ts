import { existsSync } from 'node:fs'
import { join } from 'node:path'

export type Environment = Readonly<Record<string, string | undefined>>

/** Of two files that have the same variable, the first one counts; the environment of the process counts most. */
const files = ['.env.local', '.env', 'supabase/functions/.env']

/** Puts the variables of the folder's `.env` files into the environment of the process, and returns that. */
export function loadEnvironment(folder: string): Environment {
  for (const file of files) {
    const path = join(folder, file)
    if (existsSync(path)) process.loadEnvFile(path)
  }
  return process.env
}

/** The URL of the project. Apps have it under names of their own. */
export function projectUrlIn(environment: Environment): string | undefined {
  return firstIn(environment, ['SUPABASE_URL', 'NEXT_PUBLIC_SUPABASE_URL', 'VITE_SUPABASE_URL'])
}

export function firstIn(environment: Environment, names: readonly string[]): string | undefined {
  return names.map((name) => environment[name]).find((value) => value !== undefined && value !== '')
}
