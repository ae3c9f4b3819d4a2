import { defineConfig } from 'vitest/config'

export default defineConfig({
  resolve: { conditions: ['pgflow-source'] },
  ssr: { resolve: { conditions: ['pgflow-source'], externalConditions: ['pgflow-source'] } },
  test: {
    include: ['{sdk,local,examples,supabase}/**/*.test.ts'],
    typecheck: { enabled: true, include: ['sdk/**/*.test-d.ts'], checker: 'tsc' },
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
})
