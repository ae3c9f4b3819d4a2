import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { compile, Flow, type } from '../flow/index.ts'
import {
  ConflictError,
  ForbiddenError,
  InvalidInputError,
  NotFoundError,
  PgflowClient,
  RunFailedError,
} from './index.ts'
import { Rig } from './testing/rig.ts'

const Publish = new Flow({ slug: 'publish', startRole: 'authenticated' })
  .input<{ reviewers: string[] }>()
  .wait({ slug: 'approval', by: 'run.reviewers', output: type<{ approved: boolean }>() })
  .wait({ slug: 'confirmed', dependsOn: ['approval'], by: 'owner', output: type<null>(), timeout: '1h' })
  .sleep({ slug: 'pause', dependsOn: ['confirmed'], for: '2h' })

type Flows = { publish: typeof Publish }

let rig: Rig

beforeAll(async () => {
  rig = await Rig.start()
  await rig.sql.unsafe(compile(Publish))
})
afterAll(() => rig.stop())

async function user(id = randomUUID()) {
  return { id, client: new PgflowClient<Flows>(await rig.user(id)) }
}

describe('a wait', () => {
  it('is completed by those whom it names, and seen by them alone', async () => {
    const [owner, reviewer, stranger] = await Promise.all([user(), user(), user()])
    const run = await owner.client.startFlow('publish', { reviewers: [reviewer.id] })
    const started = await run.steps.approval
    expect(started).toMatchObject({ status: 'started', waits_for: 'signal', due_at: null })
    expect(await owner.client.listWaits()).toEqual([])
    expect(await stranger.client.listWaits()).toEqual([])
    const waits = await reviewer.client.listWaits({ flowSlug: 'publish' })
    expect(waits).toEqual([
      {
        run_id: run.runId,
        flow_slug: 'publish',
        step_slug: 'approval',
        started_at: expect.any(String),
        due_at: null,
        input: { run: { reviewers: [reviewer.id] } },
        output_schema: null,
      },
    ])
    await expect(reviewer.client.getRun(run.runId)).rejects.toThrow(NotFoundError)
    await expect(stranger.client.completeWait(waits[0]!, { approved: true })).rejects.toThrow(NotFoundError)
    await expect(run.step('approval').complete({ approved: true })).rejects.toThrow(ForbiddenError)
    const completed = new Promise((resolve) => run.step('approval').on('completed', resolve))
    await reviewer.client.completeWait(waits[0]!, { approved: true })
    expect(await completed).toMatchObject({ output: { approved: true }, actor: { id: reviewer.id } })
    await reviewer.client.completeWait(waits[0]!, { approved: true }) // the same again
    await expect(reviewer.client.rejectWait(waits[0]!, 'no')).rejects.toThrow(ConflictError)
    expect(await reviewer.client.listWaits()).toEqual([])
    await run.close()
  })

  it('is completed by the owner through the run, which is current at once', async () => {
    const [owner, reviewer] = await Promise.all([user(), user()])
    const run = await owner.client.startFlow('publish', { reviewers: [reviewer.id] })
    const [wait] = await reviewer.client.listWaits()
    await reviewer.client.completeWait(wait!, { approved: false })
    await run.step('confirmed').complete(null)
    expect(run.step('confirmed').status).toBe('completed')
    expect(run.steps.pause).toMatchObject({
      status: 'started',
      waits_for: 'time',
      due_at: expect.any(String),
    })
    await run.close()
  })

  it('is rejected with a reason, which fails the run', async () => {
    const [owner, reviewer] = await Promise.all([user(), user()])
    const run = await owner.client.startFlow('publish', { reviewers: [reviewer.id] })
    const failed = run.waitForCompletion().catch((error: unknown) => error)
    const [wait] = await reviewer.client.listWaits()
    await reviewer.client.rejectWait(wait!, 'The figures are missing')
    expect(await failed).toBeInstanceOf(RunFailedError)
    expect(run.step('approval').error).toMatch(/The figures are missing/)
  })

  it('is refused what it cannot take, before anything is sent', async () => {
    const { client, id } = await user()
    const run = await client.startFlow('publish', { reviewers: [id] })
    const approval = run.step('approval')
    await expect(approval.complete(undefined as never)).rejects.toThrow(InvalidInputError)
    await expect(approval.complete({ approved: 1n } as never)).rejects.toThrow(
      /The output is not JSON: \$\.approved/,
    )
    await expect(approval.reject(7 as never)).rejects.toThrow(/reason is 7/)
    await expect(approval.reject('')).rejects.toThrow(InvalidInputError)
    await expect(client.listWaits({ cursor: null } as never)).rejects.toThrow(/There is no option 'cursor'/)
    await approval.complete({ approved: true })
    await run.cancel()
  })

  it('is listed page by page', async () => {
    const { client, id } = await user()
    const runs = await client.startFlows(
      'publish',
      Array.from({ length: 5 }, () => ({ reviewers: [id] })),
    )
    const first = await client.listWaits({ limit: 3 })
    const second = await client.listWaits({ limit: 3, afterWait: first.at(-1) })
    expect([...first, ...second].map(({ run_id }) => run_id).sort()).toEqual(
      runs.map(({ runId }) => runId).sort(),
    )
    expect(await client.listWaits({ afterWait: second.at(-1) })).toEqual([])
  })
})

it('a run that waits for another one says so, and begins when that has ended', async () => {
  await rig.sql`
    select pgflow.create_flow('index', start_role => 'authenticated', max_attempts => 1), pgflow.add_step('index', 'a')`
  await rig.sql`update pgflow.flows set singleton_when_busy = 'after', singleton_path = 'run.id' where flow_slug = 'index'`
  const client = new PgflowClient(await rig.user())
  const before = await client.startFlow('index', { id: 1 })
  const run = await client.startFlow('index', { id: 1 }, { priority: 'low' })
  expect(run.snapshot).toMatchObject({ status: 'started', waits_for: 'run', priority: 'low', seq: 1 })
  const { runs } = await client.listRuns({ flowSlug: 'index' })
  expect(runs.map(({ waits_for }) => waits_for)).toEqual(['run', null])
  const begun = new Promise((resolve) => run.on('run:begun', resolve))
  await rig.settle(before.runId, 'a', { output: 1 })
  await rig.sql`select pgflow.tick()`
  expect(await begun).toMatchObject({ waits_for: null })
  expect(run.snapshot.waits_for).toBe(null)
  const late = new Promise((resolve) => run.on('run:started', resolve))
  expect(await late).toMatchObject({ seq: 1, waits_for: 'run' })
  await rig.sql`update pgflow.flows set singleton_when_busy = 'return' where flow_slug = 'index'`
  const same = await client.startFlow('index', { id: 1 }, { idempotencyKey: 'k' })
  expect(same.runId).toBe(run.runId)
  await rig.settle(run.runId, 'a', { output: 2 })
  expect(await same.waitForCompletion()).toEqual({ a: 2 })
  await expect(client.startFlow('index', { id: 2 }, { priority: 'high' })).rejects.toThrow(ForbiddenError)
  await rig.sql`update pgflow.flows set singleton_when_busy = 'reject' where flow_slug = 'index'`
  const other = await client.startFlow('index', { id: 1 })
  await expect(client.startFlow('index', { id: 1 })).rejects.toThrow(ConflictError)
  await expect(client.startFlow('index', { id: 1 })).rejects.toThrow(other.runId)
})
