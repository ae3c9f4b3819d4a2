import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { definitionOf, Flow, shapeOf, toMermaid, type } from './index.ts'

const Publish = new Flow({ slug: 'publish', startDelay: 5, timeout: 9 })
  .input<{ remind_at: string; editor: string }>()
  .step('draft', () => ({ text: 'a', reviewers: ['x'] }))
  .wait({
    slug: 'approval',
    by: 'draft.reviewers',
    notBy: 'owner',
    output: z.object({ approved: z.boolean().default(false) }),
    timeout: '48h',
    whenTimedOut: { output: { approved: false } },
    webhook: 'stripe',
  })
  .wait({ slug: 'seen', output: type<boolean>(), by: 'owner', whenExhausted: 'skip', webhook: true })
  .sleep({ slug: 'pause', dependsOn: ['approval'], for: '3d' })
  .sleep({ slug: 'reminder', until: 'run.remind_at', runIf: { run: { editor: 'x' } } })

describe('waits and sleeps', () => {
  it('are defined as the database knows them', () => {
    expect(definitionOf(Publish).steps.slice(1)).toEqual([
      {
        step_slug: 'approval',
        deps_slugs: ['draft'],
        step_type: 'wait',
        completed_by: 'assignees',
        assignees_path: 'draft.reviewers',
        not_by_owner: true,
        timeout: 172_800,
        when_timed_out: 'complete',
        timed_out_output: { approved: false },
        webhook: 'stripe',
        // The default is not there yet: what completes a wait is stored as it is given.
        output_schema: expect.not.objectContaining({ required: expect.anything() }),
      },
      {
        step_slug: 'seen',
        deps_slugs: [],
        step_type: 'wait',
        completed_by: 'owner',
        when_exhausted: 'skip',
        webhook: 'plain',
      },
      { step_slug: 'pause', deps_slugs: ['approval'], step_type: 'sleep', sleep_for: 259_200 },
      {
        step_slug: 'reminder',
        deps_slugs: [],
        step_type: 'sleep',
        until_path: 'run.remind_at',
        run_if: { run: { editor: 'x' } },
      },
    ])
  })

  it('may change their times without a new version', () => {
    const other = (timeout: number, pause: number) =>
      new Flow({ slug: 'f' }).wait({ slug: 'a', timeout }).sleep({ slug: 'b', for: pause })
    expect(shapeOf(other(1, 2))).toEqual(shapeOf(other(10, 20)))
    expect(shapeOf(new Flow({ slug: 'f' }).wait({ slug: 'a', by: 'owner' }))).not.toEqual(
      shapeOf(new Flow({ slug: 'f' }).wait({ slug: 'a' })),
    )
  })

  it('are pictured as what they are', () => {
    expect(toMermaid(Publish).split('\n').slice(1, 6)).toEqual([
      '  s_draft["draft"]',
      '  s_approval[/"approval"/]',
      '  s_seen[/"seen"/]',
      '  s_pause(["pause"])',
      '  s_reminder(["reminder"])',
    ])
  })

  const flow = new Flow({ slug: 'f' }).step('a', () => 1) as never as {
    wait(step: object): unknown
    sleep(step: object): unknown
  }

  it.each([
    [{ by: 'nobody' }, /depends on 'nobody', but before it the flow has a/],
    [
      { by: 'run..x' },
      /by of step 'w' is 'run\.\.x': make it one of service_role, owner, authenticated, or the path/,
    ],
    [{ whenTimedOut: 'skip' }, /has whenTimedOut but no timeout: give it one, such as timeout: '48h'/],
    [
      { timeout: 1, whenTimedOut: { output: 1n } },
      /whenTimedOut of step 'w' is an object: make it one of fail/,
    ],
    [{ webhook: 'paypal' }, /webhook of step 'w' is 'paypal': make it true, false, or one of stripe, github/],
    [{ notBy: 'x' }, /notBy of step 'w' is 'x': make it one of owner/],
    [{ maxAttempts: 2 }, /has no option 'maxAttempts': the options are runIf/],
  ])('a wait refuses %o', (options, reason) => {
    expect(() => flow.wait({ slug: 'w', ...options })).toThrow(reason)
  })

  it.each([
    [{}, /step 's' needs either for \('3d'\) or until/],
    [{ for: 1, until: 'run.x' }, /needs either for/],
    [{ for: '0.5s' }, /for of step 's' is '0\.5s': make it seconds as a number/],
    [{ until: 'b.x' }, /depends on 'b'/],
    [{ for: 1, timeout: 1 }, /has no option 'timeout'/],
  ])('a sleep refuses %o', (options, reason) => {
    expect(() => flow.sleep({ slug: 's', ...options })).toThrow(reason)
  })
})
