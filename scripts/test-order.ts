import { relative } from 'node:path'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/**
 * The files that take longest, the longest first (70 to 10 seconds). Where one of them starts last, it runs alone at the end; a fresh
 * clone knows no durations, and would start small files last.
 */
const longest = [
  'supabase/tests/model/model.test.ts',
  'sdk/src/cli/supabase.test.ts',
  'supabase/tests/concurrency.test.ts',
  'local/src/stack.test.ts',
  'supabase/tests/postgres_versions.test.ts',
  'docs/getting-started.test.ts',
  'sdk/src/client/faults.test.ts',
  'sdk/src/package.test.ts',
  'examples/live/live.test.ts',
  'sdk/src/typescript.test.ts',
  'local/src/realtime/faults.test.ts',
  'examples/quickstart/demo.test.ts',
  'supabase/tests/pgtap.test.ts',
  'sdk/src/cli/dev.test.ts',
  'sdk/src/cli/compile.test.ts',
  'sdk/src/worker/lease-thread.test.ts',
  'sdk/src/worker/deno.test.ts',
  'local/src/realtime/channels.test.ts',
  'supabase/tests/fuzz.test.ts',
  'sdk/src/flow/compiler.test.ts',
  'sdk/src/worker/chaos.test.ts',
  'sdk/src/cli/doctor.test.ts',
  'sdk/src/package-types.test.ts',
  'sdk/src/worker/connection.test.ts',
  'supabase/tests/register.test.ts',
  'sdk/src/worker/defects.test.ts',
  'examples/apps.test.ts',
  'supabase/tests/crash.test.ts',
  'docs/recipes.test.tsx',
  'sdk/src/worker/crash.test.ts',
  'local/src/realtime/restarts.test.ts',
  'sdk/src/flow/completions.test.ts',
  'sdk/src/node-versions.test.ts',
]

/** Starts the longest files first, and the others as Vitest does. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files)
    const rank = ({ moduleId }: TestSpecification) => {
      const index = longest.indexOf(relative(this.ctx.config.root, moduleId))
      return index === -1 ? longest.length : index
    }
    return sorted.sort((a, b) => rank(a) - rank(b))
  }
}
