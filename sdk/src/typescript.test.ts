import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { tsc59 } from './testing/typescript-5.9.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

// `npm run check` and the tests of types use TypeScript 7. This takes long, so it is for CI.
it.runIf(process.env.CI)(
  'sources, tests of types and examples compile with TypeScript 5.9',
  { timeout: 120_000 },
  async () => {
    const project = ['--project', 'sdk/tsconfig.typescript-5.9.json']
    const compiling = promisify(execFile)(process.execPath, [tsc59, ...project, '--pretty', 'false'], {
      cwd: root,
    })
    const { stdout } = await compiling.catch((error: { stdout: string }) => error)
    expect(stdout).toBe('')
  },
)
