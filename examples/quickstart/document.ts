import { marked, type Token, type Tokens } from 'marked'

export interface Heading {
  depth: number
  text: string
}

export interface Link {
  text: string
  href: string
}

export interface Words {
  total: number
  distinct: number
  /** Minutes at 220 words a minute. */
  readingMinutes: number
  mostFrequent: { word: string; count: number }[]
}

function tokensOf<Type extends Token['type']>(
  markdown: string,
  type: Type,
): Extract<Token, { type: Type }>[] {
  const found: Token[] = []
  marked.walkTokens(marked.lexer(markdown), (token) => {
    if (token.type === type) found.push(token)
  })
  return found as Extract<Token, { type: Type }>[]
}

export function headingsOf(markdown: string): Heading[] {
  return (tokensOf(markdown, 'heading') as Tokens.Heading[]).map(({ depth, text }) => ({ depth, text }))
}

export function linksOf(markdown: string): Link[] {
  return (tokensOf(markdown, 'link') as Tokens.Link[]).map(({ text, href }) => ({ text, href }))
}

/** Statistics of the text that a reader sees: no code, no addresses. */
export function wordsOf(markdown: string): Words {
  const text = (tokensOf(markdown, 'text') as Tokens.Text[])
    .filter(({ tokens }) => !tokens)
    .map((token) => token.text)
    .join(' ')
  const words = text.toLowerCase().match(/\p{L}[\p{L}\p{N}'’-]*/gu) ?? []
  const counts = new Map<string, number>()
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1)
  const mostFrequent = [...counts]
    .filter(([word]) => word.length > 3)
    .sort(([a, inA], [b, inB]) => inB - inA || a.localeCompare(b))
    .slice(0, 5)
    .map(([word, count]) => ({ word, count }))
  return {
    total: words.length,
    distinct: counts.size,
    readingMinutes: Math.max(1, Math.round(words.length / 220)),
    mostFrequent,
  }
}
