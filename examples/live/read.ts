import { readFile } from 'node:fs/promises'
import { NonRetryableError } from '@pgflow/sdk/flow'
import { documents } from './documents.ts'

/** The text of a document. Its name comes from a browser, so no other file can be named. */
export async function readDocument(document: string): Promise<string> {
  if (!Object.hasOwn(documents, document)) throw new NonRetryableError(`there is no document ${document}`)
  return readFile(new URL(`../../${document}`, import.meta.url), 'utf8')
}

export interface Chapter {
  title: string
  text: string
}

/** A chapter begins with a heading of the first or second level. */
export function chaptersOf(markdown: string): Chapter[] {
  return markdown.split(/^(?=#{1,2} )/m).map((text) => ({
    title: text.match(/^#+ (.*)/)?.[1] ?? '',
    text,
  }))
}
