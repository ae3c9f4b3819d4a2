/** The blocks of a language in a page, in order. */
export function codeOf(text: string, language: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'))].map(([, code]) => code!)
}

/** The files that a page shows, by their paths: blocks that begin with a comment that begins with the path. */
export function filesOf(text: string): Map<string, string> {
  const blocks = [
    ...text.matchAll(
      /^```\w+\n(?:\/\/|--|#) ((?:[\w.@<>[\]-]+\/)*[\w.@<>[\]-]+\.\w+)\b[^\n]*\n(.*?)^```$/gms,
    ),
  ]
  return new Map(blocks.map(([, path, code]) => [path!, code!]))
}
