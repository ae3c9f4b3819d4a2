import { Flow, type } from '@pgflow/sdk/flow'
import type { Sql } from 'postgres'

/** Writes a draft and asks the reviewers. What one of them approves within 48 hours is published. */
export const PublishPost = new Flow({ slug: 'publish_post', startRole: 'authenticated' })
  .input<{ title: string }>()
  .resources<{ sql: Sql; write: (title: string) => Promise<string> }>()

  .step('draft', async ({ run }, { resources: { sql, write } }) => {
    const reviewers = await sql<{ user_id: string }[]>`select user_id from public.reviewers`
    return { body: await write(run.title), reviewers: reviewers.map(({ user_id }) => user_id) }
  })

  // The first of them decides, but not about a draft of their own.
  .wait({
    slug: 'approval',
    by: 'draft.reviewers',
    notBy: 'owner',
    output: type<{ approved: boolean; comment?: string }>(),
    timeout: '48h',
    whenTimedOut: { output: { approved: false, comment: 'Nobody has reviewed it in time' } },
  })

  .step(
    { slug: 'publish', dependsOn: ['draft', 'approval'], runIf: { approval: { approved: true } } },
    async ({ run, draft }, { runId, resources: { sql } }) => {
      // A step may be attempted again, so the row is written in a way that can be repeated.
      await sql`
        insert into public.posts (run_id, title, body) values (${runId}, ${run.title}, ${draft.body})
        on conflict (run_id) do nothing`
    },
  )

  .step(
    { slug: 'drop', dependsOn: ['approval'], runIf: { approval: { approved: false } } },
    ({ approval }) => approval.comment ?? 'No reason was given',
  )
