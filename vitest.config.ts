import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'
import { LongestFirst } from './scripts/test-order.ts'

export default defineConfig({
  resolve: { conditions: ['pgflow-source'] },
  ssr: { resolve: { conditions: ['pgflow-source'], externalConditions: ['pgflow-source'] } },
  test: {
    globalSetup: 'scripts/test-folder.ts',
    include: ['{sdk,local,examples,supabase,docs,bench}/**/*.test.{ts,tsx}'],
    // `npm run check` compiles the sources; here only the type tests count.
    typecheck: { enabled: true, include: ['sdk/**/*.test-d.ts'], checker: 'tsc', ignoreSourceErrors: true },
    reporters: process.env.CI ? ['default', 'json'] : ['default'],
    outputFile: { json: '.vitest/results.json' },
    // Many files wait, for sockets, leases or processes that end. (A percentage is never more than the number of cores.)
    maxWorkers: Math.ceil(1.5 * availableParallelism()),
    sequence: { sequencer: LongestFirst },
    // Workers log the failures that tests provoke.
    silent: 'passed-only',
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
})
