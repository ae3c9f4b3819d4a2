import { readFile } from 'node:fs/promises'
import { Flow, NonRetryableError } from '@pgflow/sdk/flow'
import type { Sql } from 'postgres'
import { headingsOf, linksOf, wordsOf } from './document.ts'

/** Reads a Markdown file, looks at it from three sides at once, and saves one report for the run's owner. */
export const AnalyzeDocument = new Flow({
  slug: 'analyze_document',
  maxAttempts: 3,
  baseDelay: '1s',
  startRole: 'authenticated',
})
  .input<{ path: string }>()
  .resources<{ sql: Sql }>()
  .step({ slug: 'read_file', timeout: '10s' }, ({ run }, { signal }) =>
    readFile(run.path, { encoding: 'utf8', signal }).catch((error: NodeJS.ErrnoException) => {
      // Another attempt would not find it either.
      throw error.code === 'ENOENT' ? new NonRetryableError(`there is no file ${run.path}`) : error
    }),
  )
  .step('headings', ['read_file'], ({ read_file }) => headingsOf(read_file))
  .step('links', ['read_file'], ({ read_file }) => linksOf(read_file))
  .step('words', ['read_file'], ({ read_file }) => wordsOf(read_file))
  .step(
    { slug: 'report', dependsOn: ['headings', 'links', 'words'] },
    async ({ run, headings, links, words }, { runId, resources: { sql } }) => {
      const report = {
        path: run.path,
        title: headings[0]?.text ?? null,
        headings: headings.length,
        links: links.length,
        words,
      }
      // An attempt may be repeated, so the row is written in a way that can be repeated too.
      await sql`
        insert into public.document_reports (run_id, owner_id, report)
        select run_id, owner_id, ${sql.json(report)} from pgflow.runs where run_id = ${runId}
        on conflict (run_id) do update set report = excluded.report`
      return report
    },
  )
