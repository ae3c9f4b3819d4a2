/** The blocks of a language in a page, in order. */
export function codeOf(text: string, language: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'))].map(([, code]) => code!)
}

const pathComment = /^(?:\/\/|--|#) ((?:[\w.@<>[\]-]+\/)*[\w.@<>[\]-]*\.\w+)\b[^\n]*\n/

/** A block of a page: a file that it shows, or commands. */
export interface Shown {
  readonly language: string
  /** Of a file, if the block begins with a comment that begins with a path. */
  readonly path: string | undefined
  /** Without that comment. */
  readonly code: string
  /** What a comment of the page's source, right before the block, says of it. */
  readonly note: string | undefined
}

/** All blocks of a page, in order. */
export function shownIn(text: string): Shown[] {
  const blocks = text.matchAll(/^(?:<!-- (.*?) -->\n)?```(\w+)\n(.*?)^```$/gms)
  return [...blocks].map(([, note, language = '', code = '']) => {
    const [comment = '', path] = pathComment.exec(code) ?? []
    return { language, path, code: code.slice(comment.length), note }
  })
}

/** The files that a page shows, by their paths; of one that is shown twice, the last text. */
export function filesOf(text: string): Map<string, string> {
  return new Map(shownIn(text).flatMap(({ path, code }) => (path === undefined ? [] : [[path, code]])))
}
