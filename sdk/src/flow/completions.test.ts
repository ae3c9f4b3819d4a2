import { describe, expect, it } from 'vitest'
import { completionsAt } from '../testing/completions.ts'

const flow = `import { Flow } from '@pgflow/sdk/flow'
const flow = new Flow<{ kind: 'book' | 'film'; urls: string[]; deep: { tags: string[] } }>({ slug: 'flow' })
  .step('first', () => ({ ok: true, list: [1] }))
  .step('second', () => 'text')
flow`

/** What an editor offers at `¦` in a call of a flow with the steps `first` and `second`. */
const at = (call: string) => completionsAt(`${flow}.${call}`)

describe('an editor offers', () => {
  it.each([
    "step({ slug: 'a', dependsOn: ['¦'] }, () => 1)",
    "step({ slug: 'a', dependsOn: ['first', '¦'] }, ({ first }) => first)",
    "step({ slug: 'a', dependsOn: ['¦'] })",
    "step('a', ['¦'], () => 1)",
    "step('a', ['first', '¦'], () => 1, { timeout: 5 })",
    "map({ slug: 'a', items: 'run.urls', dependsOn: ['¦'] }, () => 1)",
  ])('the steps that a step can wait for: %s', (call) => {
    expect(at(call)).toEqual(['first', 'second'])
  })

  it.each(["map({ slug: 'a', items: '¦' }, () => 1)", "map({ slug: 'a', items: '¦' })"])(
    'the arrays that a map can go over: %s',
    (call) => {
      expect(at(call)).toEqual(['first.list', 'run.deep.tags', 'run.urls'])
    },
  )

  it.each([
    ["loop({ slug: 'a', start: '¦', until: { ok: true } }, () => 1)", ['first', 'run', 'second']],
    [
      "loop({ slug: 'a', start: 'first', until: { ¦ } }, (state) => ({ ...state, done: true }))",
      ['done', 'list', 'ok'],
    ],
  ])('with what a loop starts, and how it ends: %s', (call, offered) => {
    expect(at(call)).toEqual(offered)
  })

  it.each([
    ["step({ slug: 'a', limits: [{ by: '¦', running: 1 }] }, () => 1)", ['run.kind']],
    ["step({ slug: 'a', dependsOn: ['first'], limits: [{ by: '¦' }] }, () => 1)", ['first.ok', 'run.kind']],
    ["map({ slug: 'a', items: 'first.list', limits: [{ by: '¦' }] }, () => 1)", ['first.ok', 'run.kind']],
    ["step('a', () => 1, { limits: [{ by: '¦' }] })", ['run.kind']],
    ["map({ slug: 'a', items: 'run.urls', whenItemFails: '¦' }, () => 1)", ['collect', 'fail']],
  ])('what a limit can look at, and what becomes of failed items: %s', (call, offered) => {
    expect(at(call)).toEqual(offered)
  })

  it.each(["singleton: { key: '¦' }", "limits: [{ by: '¦', running: 1 }]"])(
    'paths into the input of a flow: %s',
    (option) => {
      const input = '{ id: string; list: string[]; deep: { n: number } }'
      expect(
        completionsAt(
          `import { Flow } from '@pgflow/sdk/flow'\nnew Flow<${input}>({ slug: 'flow', ${option} })`,
        ),
      ).toEqual(['run.deep.n', 'run.id'])
    },
  )

  it.each([
    ["step({ slug: 'a', runIf: { ¦ } }, () => 1)", ['run']],
    ["step({ slug: 'a', runIf: { run: { ¦ } } }, () => 1)", ['deep', 'kind', 'urls']],
    ["step({ slug: 'a', runUnless: { run: { kind: '¦' } } }, () => 1)", ['book', 'film']],
    ["step({ slug: 'a', dependsOn: ['first'], runIf: { ¦ } }, () => 1)", ['first', 'run']],
    ["step({ slug: 'a', dependsOn: ['first'], runIf: { first: { ¦ } } }, () => 1)", ['list', 'ok']],
    ["step('a', () => 1, { runIf: { ¦ } })", ['run']],
    ["step('a', ['second'], () => 1, { runUnless: { ¦ } })", ['run', 'second']],
    ["map({ slug: 'a', items: 'first.list', runIf: { ¦ } }, () => 1)", ['first', 'run']],
  ])('what a condition can look at: %s', (call, offered) => {
    expect(at(call)).toEqual(offered)
  })

  it("the keys of a handler's payload", () => {
    expect(at("step('a', ['first'], ({ ¦ }) => 1)")).toEqual(['first', 'run'])
  })
})
