import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { root } from './pages.ts'

/** What a program exports. */
export async function imported(program: string) {
  await mkdir(join(root, '.vitest'), { recursive: true })
  const folder = await mkdtemp(join(root, '.vitest', 'page-'))
  try {
    await writeFile(`${folder}/page.ts`, program)
    return await import(`${folder}/page.ts`)
  } finally {
    await rm(folder, { recursive: true })
  }
}
