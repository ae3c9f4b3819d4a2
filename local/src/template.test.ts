import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Template } from './template.ts'

let temporary: string
let templates: string

beforeEach(async () => {
  temporary = await realpath(await mkdtemp(join(tmpdir(), 'template-test-')))
  templates = join(temporary, `templates-${process.getuid!()}`)
  for (const folder of ['native/bin', 'data/base']) await mkdir(join(temporary, folder), { recursive: true })
  await chmod(join(temporary, 'data'), 0o700)
  await writeFile(join(temporary, 'native/bin/postgres'), '')
  await writeFile(join(temporary, 'data/base/1'), 'rows', { mode: 0o600 })
})

afterEach(async () => {
  await rm(temporary, { recursive: true })
})

/** One that is not saved yet, of a server in the folder `native`. */
const template = (...parts: string[]) => Template.of(temporary, join(temporary, 'native'), undefined, parts)
const data = () => join(temporary, 'data')
const copy = () => join(temporary, 'copy')

async function expectNone(template: Template): Promise<void> {
  expect(await template.copyTo(copy())).toBe(false)
  expect(template.password).toBe(undefined)
  expect(await readdir(temporary)).not.toContain('copy')
}

describe('a template', () => {
  test('is copied as it was saved, with its password', async () => {
    await (await template('a')).save(data(), 'secret')
    const later = await template('a')
    expect(await later.copyTo(copy())).toBe(true)
    expect(later.password).toBe('secret')
    expect(await readFile(join(copy(), 'base/1'), 'utf8')).toBe('rows')
    expect((await stat(copy())).mode & 0o777).toBe(0o700)
    expect((await stat(templates)).mode & 0o777).toBe(0o700)
  })

  test('is of one server and one version of the SQL', async () => {
    await expectNone(await template('a'))
    await (await template('a')).save(data(), 'secret')
    await expectNone(await template('b'))
    await writeFile(join(temporary, 'native/bin/postgres'), 'another')
    await expectNone(await template('a'))
  })

  test('is there as a whole or not at all', async () => {
    await (await template('a')).save(join(temporary, 'missing'), 'secret') // the copy fails after the folder was made
    await expectNone(await template('a'))
    expect(await readdir(templates)).toEqual([])
  })

  test('is made once by many that save it at the same time', async () => {
    await Promise.all(
      ['1', '2', '3', '4'].map(async (password) => (await template('a')).save(data(), password)),
    )
    expect(await readdir(templates)).toHaveLength(1)
    const later = await template('a')
    expect(await later.copyTo(copy())).toBe(true)
    expect('1234').toContain(later.password)
  })

  test('is not used where others could have written it', async () => {
    await (await template('a')).save(data(), 'secret')
    await chmod(templates, 0o777)
    await expectNone(await template('a'))
    await (await template('b')).save(data(), 'secret')
    expect(await readdir(templates)).toHaveLength(1)
  })

  test('is removed when it has not been used for a week', async () => {
    await (await template('old')).save(data(), 'secret')
    await (await template('recent')).save(data(), 'secret')
    const [old] = await readdir(templates)
    await utimes(join(templates, old!), new Date(), new Date(Date.now() - 8 * 24 * 3600 * 1000))
    await (await template('new')).save(data(), 'secret')
    expect(await readdir(templates)).toHaveLength(2)
    expect(await readdir(templates)).not.toContain(old)
  })
})
