import { readFile } from 'node:fs/promises'
import { Flow, NonRetryableError } from '@pgflow/sdk/flow'
import { headingsOf, linksOf, wordsOf } from '../quickstart/document.ts'
import { documents } from './documents.ts'

interface Resources {
  /** Waits a little, so that people can watch. */
  pause(signal: AbortSignal): Promise<void>
}

/** Reads one of the documents chapter by chapter, and looks at it from other sides meanwhile. */
export const ReadDocument = new Flow({ slug: 'read_document', baseDelay: '1s', startRole: 'authenticated' })
  .input<{ document: string }>()
  .resources<Resources>()
  .step('text', ({ run: { document } }) => {
    // The input comes from a browser: it names no file but these.
    if (!(document in documents)) throw new NonRetryableError(`there is no document ${document}`)
    return readFile(new URL(`../../${document}`, import.meta.url), 'utf8').catch((error: Error) => {
      throw new NonRetryableError(`${document} cannot be read`, { cause: error })
    })
  })
  .step('headings', ['text'], ({ text }) => headingsOf(text))
  .step('links', ['text'], ({ text }) => linksOf(text))
  .step('chapters', ['text'], ({ text }) => text.split(/^(?=#{1,2} )/m))
  .map({ slug: 'words', items: 'chapters' }, async (chapter, { signal, resources: { pause } }) => {
    await pause(signal)
    return wordsOf(chapter).total
  })
  .step('report', ['headings', 'links', 'words'], ({ headings, links, words }) => ({
    title: headings[0]?.text ?? null,
    headings: headings.length,
    links: links.length,
    words: words.reduce((sum, count) => sum + count, 0),
    longestChapter: Math.max(0, ...words),
  }))
