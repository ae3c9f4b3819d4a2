import { type Context, Flow, type } from '@pgflow/sdk/flow'
import { linksOf, wordsOf } from '../quickstart/document.ts'
import { FindHeadings } from './headings.ts'
import { chaptersOf, readDocument } from './read.ts'
import { failOnRequest, type Trouble } from './trouble.ts'

interface Input {
  document: string
  /** Whether another visitor has to approve the report. */
  approval?: boolean
  trouble?: Trouble
}

type Task = Pick<Context, 'stepSlug' | 'taskIndex' | 'signal'>

export interface Resources {
  /** Waits a little, so that people can watch. */
  pause(task: Task): Promise<void>
}

/** Reads a document, looks at it from several sides at once, and publishes what it has found. */
export const ReadDocument = new Flow({
  slug: 'read_document',
  startRole: 'authenticated',
  baseDelay: '1s',
})
  .input<Input>()
  .resources<Resources>()

  .step('text', async ({ run }, context) => {
    await context.resources.pause(context)
    return readDocument(run.document)
  })

  // Three steps that run at the same time; the first one is a run of another flow.
  .flow({ slug: 'headings', flow: FindHeadings, dependsOn: ['text'] })
  .step('links', ['text'], async ({ run, text }, context) => {
    await context.resources.pause(context)
    failOnRequest(run.trouble, context.attempt)
    return linksOf(text)
  })
  .step('chapters', ['text'], ({ text }) => chaptersOf(text))

  // Only for one document; for the others it is skipped.
  .step(
    {
      slug: 'contents',
      dependsOn: ['headings'],
      runIf: { run: { document: 'ARCHITECTURE.md' } },
    },
    ({ headings }) => headings.list.map(({ text }) => text),
  )

  // A task for each chapter.
  .map({ slug: 'words', items: 'chapters' }, async (chapter, context) => {
    await context.resources.pause(context)
    return { chapter: chapter.title, words: wordsOf(chapter.text).total }
  })

  .step('report', ['headings', 'links', 'words'], async (all, context) => {
    await context.resources.pause(context)
    const longest = all.words.toSorted((a, b) => b.words - a.words)[0]
    return {
      title: all.headings.list[0]?.text ?? null,
      headings: all.headings.list.length,
      links: all.links.length,
      words: all.words.reduce((sum, { words }) => sum + words, 0),
      longestChapter: longest?.chapter ?? null,
    }
  })

  // Asks everybody else who is signed in, if the visitor wants that.
  .wait({
    slug: 'approval',
    dependsOn: ['report'],
    by: 'authenticated',
    notBy: 'owner',
    runIf: { run: { approval: true } },
    whenUnmet: 'skip',
    output: type<{ approved: true }>(),
    timeout: '15m',
  })

  .step('publish', ['report', 'approval'], ({ report }) => report)
