import axe from 'axe-core'
import type { Page } from 'playwright-core'

/** What axe finds wrong with the page as it is shown, one line for each element. */
export async function accessibilityIssues(page: Page): Promise<string[]> {
  if (!(await page.evaluate(() => 'axe' in globalThis))) await page.evaluate(axe.source)
  return page.evaluate(async () => {
    const { violations } = await (globalThis as unknown as { axe: typeof axe }).axe.run({
      resultTypes: ['violations'],
    })
    return violations.flatMap(({ id, nodes }) => nodes.map(({ target }) => `${id}: ${target.join(' ')}`))
  })
}

/** What is cut or leaves its box: the page is too wide, or something leaves its card or its node. */
export function layoutIssues(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const issues: string[] = []
    if (document.documentElement.scrollWidth > innerWidth) issues.push('the page scrolls sideways')
    for (const element of Array.from(document.querySelectorAll('.card *'))) {
      // These scroll by themselves.
      if (element.closest('.code, .event-log')) continue
      const box = element.parentElement!.closest('.node, .card')!.getBoundingClientRect()
      const { left, right, width } = element.getBoundingClientRect()
      if (width > 0 && (left < box.left || right > box.right))
        issues.push(`${element.className || element.tagName} leaves its box: ${element.textContent}`)
    }
    for (const word of Array.from(document.querySelectorAll('.status, .slug'))) {
      const range = document.createRange()
      range.selectNodeContents(word)
      const { height } = range.getBoundingClientRect()
      if (height > 2 * Number.parseFloat(getComputedStyle(word).fontSize))
        issues.push(`${word.textContent} is broken into lines`)
    }
    return issues
  })
}
