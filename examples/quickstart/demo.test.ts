import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { headingsOf, linksOf, wordsOf } from './document.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pgflow-demo-test-'))
  await chmod(folder, 0o755)
})
afterAll(() => rm(folder, { recursive: true }))

/** Runs `npm run demo` with its own folder for temporary files, which must be empty again at the end. */
async function demo(...args: string[]): Promise<{ code: number; lines: string[]; left: string[] }> {
  const temporary = await mkdtemp(join(folder, 'tmp-'))
  await chmod(temporary, 0o1777)
  const child = spawn('npm', ['run', '--silent', 'demo', ...args], {
    cwd: root,
    env: { ...process.env, TMPDIR: temporary },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data: Buffer) => {
      output += data
    })
  }
  const [code] = (await once(child, 'close')) as [number]
  const left = (await readdir(temporary)).filter((name) => name.startsWith('pgflow'))
  return { code, lines: output.split('\n'), left }
}

test('analyses the README of this repository, each step shown as its event arrives', async () => {
  const { code, lines, left } = await demo()
  const text = await readFile(join(root, 'README.md'), 'utf8')

  expect(code, lines.join('\n')).toBe(0)
  expect(
    lines.filter((line) => line.endsWith('steps done')).map((line) => line.trim().split(/\s+/)[0]),
  ).toEqual(Array.from({ length: 12 }, (_, index) => String(index + 1)))
  expect(lines).toContainEqual(expect.stringMatching(/step:completed report +5\/5 steps done/))
  expect(lines).toContainEqual(expect.stringMatching(/run:completed +5\/5 steps done/))
  expect(lines).toContain('pgflow for Supabase')
  expect(lines).toContain(
    `  ${headingsOf(text).length} headings, ${linksOf(text).length} links, ${wordsOf(text).total} words`,
  )
  expect(lines).toContainEqual(expect.stringMatching(/saved in public\.document_reports: 1 row/))
  expect(left).toEqual([])
})

test('takes any other path', async () => {
  const path = join(folder, 'notes.md')
  await writeFile(
    path,
    '# Notes\n\nSee [one](https://example.com/1) and [two](https://example.com/2).\n\n## More\n',
  )
  const { code, lines } = await demo(path)
  expect(code, lines.join('\n')).toBe(0)
  expect(lines).toContain('Notes')
  expect(lines).toContain('  2 headings, 2 links, 6 words')
})

test('says in a sentence what went wrong, and leaves nothing behind', async () => {
  const { code, lines, left } = await demo(join(folder, 'missing.md'))
  expect(code).toBe(1)
  expect(lines).toContainEqual(
    expect.stringMatching(/step "read_file" failed: there is no file .*missing\.md$/),
  )
  expect(lines.filter((line) => /^\s+at /.test(line))).toEqual([])
  expect(left).toEqual([])
})
