import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { RunEvent } from '../client/types.ts'
import { compile, Flow, relatedFlows } from '../flow/index.ts'
import { startWorker } from '../worker/index.ts'
import { startTestDatabase, type TestDatabase } from '../worker/testing/database.ts'
import type { Io } from './command.ts'
import { limitsCommand } from './limits.ts'
import { runsCommand } from './runs.ts'
import { lineOfEvent } from './runs-text.ts'
import { schedulesCommand } from './schedules.ts'
import { said } from './testing/command.ts'
import { pgflow } from './testing/pgflow.ts'

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
  for (const slug of ['greet', 'other', 'bulk']) {
    const flow = new Flow<string>({ slug, maxAttempts: 1 })
      .step('text', ({ run }) => run)
      .step('mail', ['text'], ({ text }) => text)
    await db.sql.unsafe(compile(flow))
  }
})
afterAll(() => db[Symbol.asyncDispose]())

const runs = (args: readonly string[], io?: Partial<Io>) => said(runsCommand, [...args, '--db', db.url], io)

async function failedRun(flow_slug: string, error: string): Promise<string> {
  const run_id = await db.startRun(flow_slug, 'Ada')
  await db.sql`select pgflow.fail_task(${run_id}, 'text', 0, ${error})`
  return run_id
}

describe('pgflow runs list', () => {
  it('lists, filters, and gives rows as JSON', async () => {
    const failed = await failedRun('greet', 'no Ink, 100% out')
    const going = await db.startRun('greet', 'Grace')
    const all = await runs(['list'])
    expect(all).toMatchObject({ error: undefined, notes: [] })
    expect(all.out).toEqual([
      expect.stringMatching(new RegExp(`^${going}  \\d{4}-\\d\\d-\\d\\dT[\\d:]{8}  started    greet$`)),
      expect.stringMatching(new RegExp(`^${failed}  .*  failed     greet  .*no Ink, 100% out$`)),
    ])
    const { out } = await runs(['list', '--flow', 'greet', '--status', 'failed', '--limit', '5', '--json'])
    expect(JSON.parse(out.join('\n'))).toEqual([expect.objectContaining({ run_id: failed, input: 'Ada' })])
    const ids = async (...args: string[]) =>
      (await runs(['list', ...args])).out.map((line) => line.slice(0, 36))
    expect(await ids('--error', 'NO INK, 100%')).toEqual([failed])
    expect(await ids('--error', 'no%ink')).toEqual([])
    expect(await ids('--status', 'started,failed')).toEqual([going, failed])
    expect(await ids('--flow', 'other')).toEqual([])
    await db.sql`update pgflow.runs set started_at = now() - interval '3 h' where run_id = ${failed}`
    expect(await ids('--since', '2h')).toEqual([going])
    expect(await ids('--since', new Date(Date.now() - 4 * 3_600_000).toISOString())).toEqual([going, failed])
    await db.sql`select pgflow.cancel_run(${going})`
  })

  it('says which run waits', async () => {
    const once = new Flow<string>({ slug: 'once' }).step('a', ({ run }) => run)
    await db.sql.unsafe(compile(once))
    await db.sql`update pgflow.flows set singleton_when_busy = 'after' where flow_slug = 'once'`
    const going = await db.startRun('once', '')
    const waiting = await db.startRun('once', '')
    const { out } = await runs(['list', '--flow', 'once'])
    expect(out).toEqual([
      expect.stringMatching(new RegExp(`^${waiting} .* started    once  waits for another run$`)),
      expect.stringMatching(new RegExp(`^${going} .* started    once$`)),
    ])
    const shown = await runs(['show', waiting])
    expect(shown.out[0]).toMatch(/waits for another run$/)
    const [{ event }] = await db.sql<[{ event: RunEvent }]>`
      select event from pgflow.run_event_records where run_id = ${waiting}`
    expect(lineOfEvent(event)).toMatch(/run:started +waits for another run$/)
    await db.sql`select pgflow.cancel_run(${waiting}), pgflow.cancel_run(${going})`
  })

  it('lists root runs, and with --children those of sub-flows; a run names its parent and its children', async () => {
    const Part = new Flow<number>({ slug: 'part', maxAttempts: 1 }).step('a', ({ run }) => {
      if (run === 2) throw new Error('two is bad')
      return run
    })
    const Whole = new Flow<number[]>({ slug: 'whole' }).flowMap({
      ...({ slug: 'parts', flow: Part, whenItemFails: 'collect' } as const),
    })
    const worker = await startWorker({ connection: db.url, flows: [Whole], log: false })
    onTestFinished(() => worker.stop())
    const run_id = await db.startRun('whole', [1, 2])
    await db.runEnded(run_id)
    const [good, bad] = await db.sql<{ run_id: string }[]>`select run_id from pgflow.list_children(${run_id})`
    expect((await runs(['list', '--flow', 'part'])).out).toEqual([])
    expect((await runs(['list', '--flow', 'part', '--children'])).out).toHaveLength(2)
    const { out } = await runs(['show', run_id])
    expect(out[2]).toMatch(/^ {2}parts {2}completed .*, runs part, 2 items: 1 failed, 1 completed$/)
    expect(out).toContain(`      run  ${good!.run_id}  completed  item 0`)
    expect(out.join('\n')).toMatch(
      new RegExp(`^ {6}run {2}${bad!.run_id} {2}failed {5}item 1 {2}.*two is bad`, 'm'),
    )
    expect(out.join()).not.toContain('item 1, failed')
    expect((await runs(['show', bad!.run_id])).out).toContain(`  for parts[1] of run ${run_id}`)
  })

  it('takes an alias for all versions', async () => {
    const newer = new Flow<string>({ slug: 'versioned', version: 2 }).step('a', ({ run }) => run)
    await db.sql.unsafe(compile(new Flow<string>({ slug: 'versioned' }).step('a', ({ run }) => run)))
    await db.sql.unsafe(compile(newer))
    const ids = [await db.startRun(newer.slug, ''), await db.startRun('versioned', '')]
    const listed = async (flow: string) => (await runs(['list', '--flow', flow])).out.length
    expect([await listed('versioned'), await listed(newer.slug)]).toEqual([2, 2])
    await Promise.all(ids.map((id) => db.sql`select pgflow.cancel_run(${id})`))
  })
})

describe('pgflow runs show', () => {
  it('has attempts, times, errors with stacks and causes, turns of loops and items of maps', async () => {
    const flow = new Flow<number[]>({ slug: 'shown', maxAttempts: 2, baseDelay: 0 })
      .step('fine', ({ run }) => run.length)
      .loop({ slug: 'turns', start: 'run', max: 2, whenExceeded: 'complete' }, (numbers) => numbers)
      .map({ slug: 'items', items: 'turns' }, (n: number) => {
        if (n === 2) throw new TypeError('two is bad\u001b[2J', { cause: new Error('because') })
        return n
      })
    const worker = await startWorker({ connection: db.url, flows: [flow], log: false })
    onTestFinished(() => worker.stop())
    const run_id = await db.startRun('shown', [1, 2, 3])
    await db.runEnded(run_id)
    const { out, error } = await runs(['show', run_id])
    expect(error).toBeUndefined()
    const text = out.join('\n')
    const stamp = '\\d{4}-\\d\\d-\\d\\d [\\d:]{8} UTC'
    expect(text).toMatch(new RegExp(`^ {2}started ${stamp}, failed ${stamp}, after [\\d.]+ m?s$`, 'm'))
    expect(text).toMatch(/^ {2}fine {3}completed {2}after \d+ ms, took \d+ ms, attempt 1 of 2$/m)
    expect(text).toMatch(/^ {2}turns {2}completed {2}after .*, 2 turns: 2 completed$/m)
    expect(text).toMatch(/^ {2}items {2}failed {5}after .*, 3 items: .*1 failed/m)
    expect(text).toMatch(/^ {6}item 1, failed: step "items" failed: TypeError: two is bad \[2J: because$/m)
    expect(text).toMatch(/^ {6}TypeError: two is bad .*\n {10}at .*runs\.test\.ts:\d+/m)
    expect(text).toMatch(/^ {8}caused by Error: because$/m)
    expect(text).toMatch(
      /another:\n {4}[\d:.]{12} {2}step:retrying {2}items .*\(failures so far: 1, next attempt/,
    )
    const json = JSON.parse((await runs(['show', run_id, '--json'])).out.join('\n'))
    expect(json).toMatchObject({
      run_id,
      steps: [{}, {}, {}],
      tasks: [{ max_attempts: 2 }, { is_loop: true }, { is_map: true }],
    })
  })
})

describe('pgflow runs show of a run that waits', () => {
  const Waiting = new Flow<{ editors: string[] }>({ slug: 'waiting', startRole: 'authenticated' })
    .wait({ slug: 'by_path', by: 'run.editors', notBy: 'owner', timeout: '48h' })
    .wait({ slug: 'by_all', by: 'authenticated' })
    .wait({ slug: 'paid', webhook: 'stripe' })
    .wait({ slug: 'by_hand' })
    .sleep({ slug: 'pause', for: '1h' })

  it('says who is asked and until when, then who has decided', async () => {
    await db.sql.unsafe(compile(Waiting))
    const editors = [1, 2, 3].map((n) => `1000000${n}-0000-4000-8000-000000000000`)
    const run_id = await db.startRun('waiting', { editors })
    const shown = async () => (await runs(['show', run_id])).out.map((line) => line.replace(/ {2,}/g, '  '))
    const until = 'until \\d{4}-\\d\\d-\\d\\d [\\d:]{8} UTC'
    expect((await shown()).slice(2)).toEqual([
      expect.stringMatching(
        new RegExp(
          `^  by_path  started  after \\d+ ms, waits for ${editors.join(', ')}, not the owner, ${until}$`,
        ),
      ),
      expect.stringMatching(/^ {2}by_all {2}started {2}after \d+ ms, waits for any signed-in user$/),
      expect.stringMatching(/^ {2}paid {2}started {2}after \d+ ms, waits for a webhook of stripe$/),
      expect.stringMatching(/^ {2}by_hand {2}started {2}after \d+ ms, waits for a server or SQL$/),
      expect.stringMatching(new RegExp(`^  pause  started  after \\d+ ms, sleeps ${until}$`)),
    ])
    await db.sql`select pgflow.complete_wait(${run_id}, 'by_hand', '1')`
    await db.sql`
      select set_config('request.jwt.claims', ${JSON.stringify({ role: 'authenticated', sub: editors[1] })}, true),
             pgflow.reject_wait(${run_id}, 'by_path', 'too long')`
    const [, , path, reason, , , hand] = await shown()
    expect(path).toMatch(new RegExp(`^  by_path  failed  .*, took .*, by ${editors[1]}$`))
    expect(reason).toBe('  too long')
    expect(hand).toMatch(/^ {2}by_hand {2}completed {2}after \d+ ms, took [\d.]+ m?s$/)
  })
})

describe('pgflow limits, and runs that wait for a slot', () => {
  const limits = (...args: string[]) => said(limitsCommand, [...args, '--db', db.url])
  const stamp = '\\d{4}-\\d\\d-\\d\\d [\\d:]{8} UTC'
  const lines = (...texts: string[]) => texts.map((text) => expect.stringMatching(new RegExp(`^${text}$`)))

  it('lists, sets and resets; says which limit a run waits for', async () => {
    expect(await limits('list')).toMatchObject({ out: [], notes: ['no limits'] })
    await db.sql`select pgflow.register_flow(${db.sql.json({
      flow_slug: 'tenants',
      limits: [{ by_path: 'run.tenant', running: 1 }],
      steps: [
        {
          step_slug: 'ask',
          limits: [{ limit_slug: 'openai', running: 2, rate_count: 3000, rate_period: 60 }],
        },
        { step_slug: 'each', step_type: 'map', map_source: 'run', map_path: 'pages', concurrency: 1 },
      ],
    })})`
    const run_ids: string[] = []
    for (const tenant of ['acme', 'acme', 'globex']) {
      run_ids.push(await db.startRun('tenants', { tenant, pages: [1, 2] }))
    }
    await db.sql`select pgflow.tick()`
    const { out } = await limits('list')
    expect(out).toEqual(
      lines(
        'openai {2}2 at a time, 3000 per 60 s {2}set by a flow',
        ` {2}2 of 2 running, 1 waiting since ${stamp}`,
        'tenants {2}1 at a time {2}set by a flow',
        ` {2}acme {2}1 of 1 running, 5 waiting since ${stamp}`,
        ` {2}globex {2}1 of 1 running, 2 waiting since ${stamp}`,
        'concurrency of maps',
        ...Array(3).fill(` {2}[\\da-f-]{36} {2}each {2}\\d of 1 running, \\d waiting since ${stamp}`),
      ),
    )
    const shown = (await runs(['show', run_ids[1]!])).out
    expect(shown.slice(2)).toEqual([
      expect.stringMatching(
        /^ {2}ask .* waits for a slot of openai \(2 of 2 running, 3000 per 60 s\) and tenants for acme \(1 of 1 running\)$/,
      ),
      expect.stringMatching(
        /^ {2}each .*, 2 items: 2 waiting, waits for a slot of tenants for acme \(1 of 1 running\) and its concurrency \(0 of 1 running\)$/,
      ),
    ])
    expect((await runs(['list', '--flow', 'tenants'])).out).toHaveLength(3)
    expect((await limits('set', 'tenants', '--running', '5', '--rate', '10/1s')).out[0]).toBe(
      'tenants  5 at a time, 10 per 1 s  set by SQL',
    )
    expect((await limits('reset', 'tenants')).out[0]).toBe('tenants  5 at a time, 10 per 1 s  set by a flow')
    expect(JSON.parse((await limits('list', '--flow', 'greet', '--json')).out.join(''))).toEqual([])
  })

  it.each<[string, string[], string]>([
    ['what to do', [], 'name what to do: list, set or reset\nUsage: pgflow limits'],
    ['which one', ['set'], 'name the limit\nUsage: pgflow limits'],
    ['what it is', ['set', 'openai'], 'say what the limit is: --running, --rate or both'],
    [
      'how a rate is written',
      ['set', 'openai', '--rate', '10'],
      '--rate is a number of tasks in a time of whole',
    ],
    ['that there is none', ['reset', 'nope'], 'limit "nope" does not exist'],
  ])('says %s', async (_, args, words) => {
    const answer = args.length === 0 ? await said(limitsCommand, args) : await limits(...args)
    expect(answer).toMatchObject({ out: [], error: expect.stringContaining(words) })
  })
})

describe('pgflow runs watch', () => {
  it('writes each event once, as it happens, and ends with the run', async () => {
    const flow = new Flow<string>({ slug: 'watched' })
      .step('a', ({ run }) => run)
      .step('b', ['a'], ({ a }) => `${a}!`)
    await db.sql.unsafe(compile(flow))
    const run_id = await db.startRun('watched', 'x')
    const lines: string[] = []
    let onLine = () => {}
    const watching = runs(['watch', run_id], {
      out: (line) => {
        lines.push(line)
        onLine()
      },
    })
    const saw = (word: string) =>
      new Promise<void>((resolve) => {
        onLine = () => lines.some((line) => line.includes(word)) && resolve()
        onLine()
      })
    await saw('step:started')
    await db.sql`select pgflow.complete_task(${run_id}, 'a', 0, '"x"')`
    await saw('step:completed  a  "x"')
    await db.sql`select pgflow.complete_task(${run_id}, 'b', 0, '"x!"')`
    expect((await watching).error).toBeUndefined()
    expect(lines.map((line) => line.replace(/^[\d:.]{12} {2}/, '').replace(/ +/g, ' '))).toEqual([
      'run:started',
      'step:started a',
      'step:completed a "x"',
      'step:started b',
      'step:completed b "x!"',
      'run:completed {"b":"x!"}',
    ])
  })

  it('goes past an earlier failure of a run that was retried; fails with the run', async () => {
    const run_id = await failedRun('greet', 'no ink')
    await db.sql`select pgflow.retry_run(${run_id})`
    await db.sql`select pgflow.cancel_run(${run_id}, 'enough')`
    const { out, error } = await runs(['watch', run_id, '--json'])
    expect(out.map((line) => JSON.parse(line).type)).toContain('run:retried')
    expect(error).toBe(`run ${run_id} was cancelled: enough`)
    const answer = await pgflow('runs', 'watch', await failedRun('greet', 'no paper'), '--db', db.url)
    expect(answer).toMatchObject({
      code: 1,
      errors: expect.stringMatching(/^pgflow runs: run .* failed: .*no paper\n$/),
    })
  })
})

describe('pgflow runs cancel and retry', () => {
  it('change one run', async () => {
    const run_id = await db.startRun('other', 'x')
    expect((await runs(['cancel', run_id, '--dry-run'])).out[0]).toMatch(/ {2}started {4}other$/)
    expect((await runs(['cancel', run_id, '--reason', 'enough'])).out[0]).toMatch(
      / {2}cancelled {2}other {2}enough$/,
    )
    expect((await runs(['retry', run_id])).out[0]).toMatch(/ {2}started {4}other$/)
    expect(await runs(['retry', run_id])).toMatchObject({
      out: [],
      error: expect.stringMatching(/^run .* cannot be retried/),
    })
    await runs(['cancel', run_id])
  })

  it('undo a run, and show what undoes it', async () => {
    const Order = new Flow<string>({ slug: 'order' })
      .step('pay', () => 1, { undo: () => {} })
      .step('end', () => 2)
    for (const flow of relatedFlows([Order])) await db.sql.unsafe(compile(flow))
    const run_id = await db.startRun('order', 'x')
    await db.sql`select pgflow.complete_task(${run_id}, 'pay', 0, '1')`
    expect((await runs(['cancel', run_id, '--undo'])).error).toBeUndefined()
    await db.sql`select pgflow.tick()`
    const shown = (await runs(['show', run_id])).out
    const undone = shown[2]!.match(/^ {2}is undone by run (\S+)$/)![1]!
    expect((await runs(['show', undone])).out).toEqual([
      expect.stringMatching(/ {2}started {4}order_undo$/),
      expect.stringContaining('started'),
      `  undoes run ${run_id}`,
      expect.stringMatching(/^ {2}pay {2}started /),
    ])
  })

  it('change what a filter finds, after a look at it', async () => {
    const ids = await Promise.all(Array.from({ length: 7 }, () => failedRun('bulk', 'no ink')))
    const others = [await failedRun('bulk', 'no paper'), await failedRun('other', 'no ink')]
    const filter = ['--flow', 'bulk', '--error', 'ink']
    const statuses = async () =>
      (await db.sql`select status from pgflow.runs where run_id = any (${[...ids, ...others]})`).map(
        ({ status }) => status,
      )
    const looked = await runs(['retry', ...filter, '--dry-run'])
    expect(looked.error).toBeUndefined()
    expect(looked.out).toEqual([
      '      7  failed     bulk',
      ...Array.from({ length: 5 }, () => expect.stringMatching(/ {2}failed {5}bulk {2}.*no ink$/)),
      '… and 2 more',
    ])
    expect((await runs(['retry', ...filter])).error).toBe(
      'there is no terminal to ask for confirmation: add --yes, or --dry-run to see what would change',
    )
    const asked: string[] = []
    const answer = (yes: boolean) => async (question: string) => {
      asked.push(question)
      return yes
    }
    expect((await runs(['retry', ...filter], { ask: answer(false) })).notes).toEqual(['nothing was changed'])
    expect(await statuses()).toEqual(Array(9).fill('failed'))
    expect((await runs(['retry', ...filter, '--limit', '2'], { ask: answer(true) })).out.at(-1)).toBe(
      '2 runs retried',
    )
    expect((await runs(['retry', ...filter, '--yes'])).out.at(-1)).toBe('5 runs retried')
    expect(asked).toEqual(['Retry 7 runs?', 'Retry 2 runs?'])
    expect((await statuses()).filter((status) => status === 'started')).toHaveLength(7)
    expect((await runs(['cancel', '--flow', 'bulk', '--yes'])).out.at(-1)).toBe('7 runs cancelled')
    expect((await runs(['cancel', '--flow', 'bulk', '--yes'])).notes).toEqual(['no runs to cancel'])
  })

  it('go on past a run that cannot be changed', async () => {
    const ids = [
      await failedRun('bulk', 'odd'),
      await failedRun('bulk', 'odd'),
      await failedRun('bulk', 'odd'),
    ]
    await db.sql.unsafe(`
      create function public.refuse() returns trigger language plpgsql as $$
      begin raise exception 'not this one'; end $$;
      create trigger refuse before update on pgflow.runs for each row
      when (new.run_id = '${ids[1]}') execute function public.refuse()`)
    onTestFinished(async () => void (await db.sql`drop function public.refuse() cascade`))
    const { notes, error } = await runs(['retry', '--error', 'odd', '--yes'])
    expect(notes).toEqual([`${ids[1]}: the database says: not this one`])
    expect(error).toBe('2 runs retried, 1 failed')
  })
})

describe('pgflow schedules', () => {
  const schedules = (...args: string[]) => said(schedulesCommand, [...args, '--db', db.url])

  it('lists, pauses, resumes and runs', async () => {
    expect(await schedules('list')).toMatchObject({ out: [], notes: ['no schedules'] })
    const owner = '10000000-0000-4000-8000-000000000001'
    await db.sql`
      select pgflow.schedule('nightly', 'greet', '30 2 * * *', '"Ada"', 'Asia/Kolkata'),
             pgflow.schedule('nightly', 'other', '@weekly', owner_id => ${owner})`
    const stamp = '\\d{4}-\\d\\d-\\d\\d [\\d:]{8} UTC'
    const night = stamp.replace('[\\d:]{8}', '21:00:00')
    const lines = (...texts: string[]) => texts.map((text) => expect.stringMatching(new RegExp(`^${text}$`)))
    const first = 'nightly {2}greet {2}30 2 \\* \\* \\* Asia/Kolkata'
    const next = ` {2}next ${night}, ${night}, ${night}`
    expect((await schedules('list')).out).toEqual(
      lines(first, next, `nightly {2}other {2}@weekly UTC {2}owner ${owner}`, ' {2}next .*'),
    )
    expect((await schedules('pause', 'nightly')).out).toEqual(
      lines(first, ` {2}paused since ${stamp}, else next ${night}, ${night}, ${night}`),
    )
    expect((await schedules('run', 'nightly')).out).toEqual(
      lines(first, ' {2}paused .*', ` {2}last run [\\da-f-]{36}, started ${stamp}, started`),
    )
    expect((await schedules('resume', 'nightly')).out).toEqual(lines(first, next, ' {2}last run .*'))
    await db.sql`update pgflow.schedules set next_at = now() - interval '2 d', due_at = now() - interval '2 d'`
    await db.sql`select pgflow.start_due_schedules()`
    expect((await schedules('list', '--flow', 'greet')).out.at(-1)).toMatch(
      new RegExp(`^ {2}no run at ${stamp}: run [\\da-f-]{36} was still open$`),
    )
    const { out } = await schedules('list', '--flow', 'other', '--json')
    expect(JSON.parse(out.join(''))).toMatchObject([
      { schedule_slug: 'nightly', owner_id: owner, next_times: [{}, {}, {}].map(() => expect.any(String)) },
    ])
    expect((await schedules('pause', 'nightly', '--owner', owner)).out[1]).toMatch(/^ {2}paused/)
  })

  it.each<[string, string[], string]>([
    ['what to do', [], 'name what to do: list, pause, resume or run\nUsage: pgflow schedules'],
    ['which one', ['pause'], 'name the schedule by its slug\nUsage: pgflow schedules'],
    ['that there is none', ['run', 'nope'], 'schedule "nope" does not exist'],
  ])('says %s', async (_, args, words) => {
    const answer = args.length === 0 ? await said(schedulesCommand, args) : await schedules(...args)
    expect(answer).toMatchObject({ out: [], error: expect.stringContaining(words) })
  })
})

it.each<[string, string[], string]>([
  ['what to do', [], 'name what to do: list, show, watch, cancel or retry\nUsage: pgflow runs'],
  ['which run', ['show'], 'name the run by its id\nUsage: pgflow runs'],
  ['which runs', ['cancel'], 'name the run by its id, or say which runs: --flow'],
  ['that it is one or many', ['cancel', 'x', '--flow', 'greet'], 'name one run by its id, or give a filter'],
  ['that the id is none', ['show', 'x'], 'the database says: invalid input syntax for type uuid: "x"'],
  ['that there is no such run', ['show', '10000000-0000-4000-8000-000000000000'], 'does not exist'],
  ['that there is nothing to watch', ['watch', '10000000-0000-4000-8000-000000000000'], 'does not exist'],
  ['that the limit is no number', ['list', '--limit', 'all'], '--limit is a whole number, 1 or more'],
  ['that there is no such status', ['list', '--status', 'done'], '--status is one of started, completed, '],
  ['that the time is none', ['list', '--since', 'monday'], '--since is a duration such as 30m, 2h or 3d'],
  [
    'which can be cancelled',
    ['cancel', '--status', 'failed'],
    'runs that are failed cannot be cancelled, only',
  ],
])('pgflow runs says %s', async (_, args, words) => {
  const answer = args.length === 0 ? await said(runsCommand, args) : await runs(args)
  expect(answer).toMatchObject({ out: [], error: expect.stringContaining(words) })
})

it('pgflow runs says that it does not reach the database, without the password', async () => {
  const { error } = await said(runsCommand, ['list', '--db', 'postgresql://me:secret@127.0.0.1:1/postgres'])
  expect(error).toMatch(/^the database cannot be reached: .*ECONNREFUSED.*--db/)
  expect(error).not.toContain('secret')
})
