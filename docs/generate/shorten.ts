/** A heading with what is below it, up to the next heading. */
interface Section {
  readonly level: number
  readonly title: string
  readonly body: string
}

/**
 * A page of typedoc without what its signatures, which are shown as code, say already; with a list of what it has.
 *
 * @param page its text; the title is left out
 */
export function shortened(page: string): string {
  const all = sectionsOf(page.replaceAll(/^\\?\*\*\*\n/gm, '')).slice(1)
  const first = all.findIndex(({ title }) => title === 'References')
  const sections = first < 0 ? all : all.slice(0, first)
  const others = first < 0 ? [] : all.slice(first + 1)
  const shorter = sections
    .map(withoutTypes)
    .filter(({ title, body }) => !emptyTitles.has(title) || body !== '')
  const texts = shorter.map((section, index) => textOf(section, shorter[index - 1]))
  return `${[...contentsOf(sections), ...reexportsOf(others), ...texts].join('\n\n')}\n`
}

function sectionsOf(page: string): Section[] {
  return page.split(/^(?=#+ )/m).map((text) => {
    const [, marks = '', title = '', body = ''] = /^(#*) ?([^\n]*)\n?(.*)$/s.exec(text)!
    return { level: marks.length, title, body: body.trim() }
  })
}

/** Sections of these titles are left out where nothing is left of them. */
const emptyTitles = new Set(['Parameters', 'Returns', 'Type Parameters', 'Overrides', 'Implementation of'])

function withoutTypes(section: Section): Section {
  const { title, body } = section
  switch (title) {
    case 'Type Parameters':
    case 'Overrides':
    case 'Implementation of':
      return { ...section, body: '' }
    case 'Parameters':
      return body.includes('| Description |') ? section : { ...section, body: '' }
    case 'Returns':
      return {
        ...section,
        body: body
          .split('\n\n')
          .filter((text) => !isType(text))
          .join('\n\n'),
      }
    default:
      return section
  }
}

/** Whether nothing is left of a text without code and links. */
function isType(text: string): boolean {
  return !/[a-z]/i.test(text.replaceAll(/`[^`]*`|\]\([^)]*\)|\b(keyof|readonly)\b/g, ''))
}

/** Errors that are thrown are one list. */
function textOf({ level, title, body }: Section, before: Section | undefined): string {
  const item = title === 'Throws' ? `- ${body.replaceAll(/\s+/g, ' ')}` : body
  if (title === 'Throws' && before?.title === 'Throws') return item
  return `${'#'.repeat(level)} ${title}${item === '' ? '' : `\n\n${item}`}`
}

function contentsOf(sections: readonly Section[]): string[] {
  const lists: string[] = []
  for (const { level, title } of sections) {
    if (level === 2) lists.push(`**${title}**: `)
    if (level === 3)
      lists[lists.length - 1] += `${lists.at(-1)!.endsWith(': ') ? '' : ', '}[${title}](#${anchorOf(title)})`
  }
  return lists
}

function reexportsOf(sections: readonly Section[]): string[] {
  const links = sections.map(({ body }) => body.replace(/^(Re-exports|Renames and re-exports) /, ''))
  return links.length === 0 ? [] : [`**Also exported**: ${links.join(', ')}`]
}

/** As GitHub makes it. */
function anchorOf(title: string): string {
  return title
    .toLowerCase()
    .replaceAll(/[^\w -]/g, '')
    .replaceAll(' ', '-')
}
