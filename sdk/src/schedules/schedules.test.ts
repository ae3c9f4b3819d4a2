import { afterAll, beforeAll, describe, expect, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import { PgflowClient } from '../client/index.ts'
import { Rig } from '../client/testing/rig.ts'
import { compile, Flow } from '../flow/index.ts'
import { PgflowSchedules, type ScheduleRow } from './index.ts'

const Digest = new Flow({ slug: 'digest', startRole: 'authenticated', schedulable: true })
  .input<{ topics: string[] }>()
  .step('send', ({ run }) => run.topics.length)

let rig: Rig

beforeAll(async () => {
  rig = await Rig.start()
  await rig.sql.unsafe(compile(Digest))
})
afterAll(() => rig[Symbol.asyncDispose]())

type Flows = { digest: typeof Digest }

async function schedulesOfUser(id?: string): Promise<PgflowSchedules<Flows>> {
  return new PgflowSchedules(new PgflowClient<Flows>(await rig.user(id)))
}

const input = { topics: ['ai'] }
const morning = { cron: '0 7 * * *', timeZone: 'Europe/Berlin' } as const

describe('schedules of a user', () => {
  it('are made, changed, listed, paused, resumed and deleted', async () => {
    const schedules = await schedulesOfUser()
    const row = await schedules.set('digest', input, morning)
    expectTypeOf(row).toEqualTypeOf<ScheduleRow<{ topics: string[] }>>()
    expect(row).toMatchObject({
      ...{ schedule_slug: 'digest', alias: 'digest', made_by: 'client', cron: '0 7 * * *', input },
      ...{ time_zone: 'Europe/Berlin', overlap: 'skip', catch_up: 'last', catch_up_window: 86_400 },
    })
    const inBerlin = new Intl.DateTimeFormat('de', { timeZone: row.time_zone, timeStyle: 'short' })
    expect(inBerlin.format(new Date(row.next_at))).toBe('07:00')

    const options = { slug: 'evening', overlap: 'allow', catchUp: 'none', catchUpWindow: '2h' } as const
    await schedules.set('digest', { topics: [] }, { cron: '@daily', ...options })
    const changed = await schedules.set('digest', { topics: ['x'] }, { cron: '@weekly', ...options })
    expect(changed).toMatchObject({
      cron: '@weekly',
      overlap: 'allow',
      catch_up: 'none',
      catch_up_window: 7200,
    })
    expect((await schedules.pause('evening')).paused_at).not.toBeNull()
    const listed = await schedules.list({ flowSlug: 'digest' })
    expect(listed.map((one) => [one.schedule_slug, one.paused_at !== null, one.input.topics])).toEqual([
      ['digest', false, ['ai']],
      ['evening', true, ['x']],
    ])
    expect((await schedules.resume('evening')).paused_at).toBeNull()
    await schedules.delete('evening')
    expect(await schedules.list()).toHaveLength(1)
    await expect(schedules.pause('evening')).rejects.toMatchObject({ name: 'NotFoundError' })
    expect(await (await schedulesOfUser()).list()).toEqual([])
  })

  it('are refused with the reason', async () => {
    const schedules = await schedulesOfUser()
    const set = (options: object, slug = 'digest', value: unknown = input) =>
      schedules.set(slug as 'digest', value as typeof input, { ...morning, ...options })
    const refusals: [() => Promise<unknown>, name: string, message: RegExp][] = [
      [
        () => set({ cron: '0 25 * * *' }),
        'InvalidInputError',
        /the hour of the cron .*: 25 is not between 0 and 23/,
      ],
      [() => set({ timeZone: 'Mars/Base' }), 'InvalidInputError', /"Mars\/Base" is not a time zone/],
      [() => set({}, 'review'), 'ForbiddenError', /users may not schedule flow "review"/],
      [() => set({}, 'nope'), 'NotFoundError', /flow "nope" does not exist/],
      // Nothing is sent.
      [() => set({ cron: undefined }), 'InvalidInputError', /^cron is undefined$/],
      [() => set({ timezone: 'UTC' }), 'InvalidInputError', /^There is no option 'timezone'$/],
      [() => set({ overlap: 'wait' }), 'InvalidInputError', /^overlap is 'wait'$/],
      [() => set({ catchUpWindow: 'soon' }), 'InvalidInputError', /^catchUpWindow is 'soon'$/],
      [() => set({}, 'digest', () => 1), 'InvalidInputError', /^The input is not JSON/],
      [() => set({ schema: z.string() }), 'InvalidInputError', /^The input is not what its schema says/],
      [() => schedules.pause('a b'), 'InvalidInputError', /^slug is 'a b'$/],
      [() => schedules.list({ ownerId: 'me' }), 'InvalidInputError', /^ownerId is 'me'$/],
      [() => set({ signal: AbortSignal.abort(new Error('enough')) }), 'Error', /^enough$/],
    ]
    for (const [refused, name, message] of refusals) {
      await expect(refused()).rejects.toMatchObject({ name, message: expect.stringMatching(message) })
    }
    const nobody = new PgflowSchedules(new PgflowClient(rig.client()))
    await expect(nobody.list()).rejects.toMatchObject({
      name: 'ForbiddenError',
      hint: 'Sign in, anonymously for instance.',
    })
  })

  it('can be kept for them with a secret key', async () => {
    const ownerId = '10000000-0000-4000-8000-000000000001'
    const server = new PgflowSchedules(new PgflowClient<Flows>(rig.clientOf(rig.stack.secretKey)))
    const { made_by, owner_id } = await server.set('digest', input, { ...morning, slug: 'given', ownerId })
    expect({ made_by, owner_id }).toEqual({ made_by: 'sql', owner_id: ownerId })
    const user = await schedulesOfUser(ownerId)
    expect(await user.list()).toMatchObject([{ schedule_slug: 'given' }])
    await expect(user.delete('given')).rejects.toMatchObject({ name: 'ForbiddenError' })
    await server.delete('given', { ownerId })
    expect(await user.list()).toEqual([])
  })
})
