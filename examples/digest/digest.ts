import { Flow } from '@pgflow/sdk/flow'

/** Where articles come from: your query, or a feed. */
export interface Articles {
  about(topic: string, signal: AbortSignal): Promise<readonly string[]>
}

/** Collects what is new about some topics. Users schedule it for themselves; the project has one for everybody, too. */
export const Digest = new Flow({
  slug: 'digest',
  startRole: 'authenticated',
  schedulable: true,
  schedules: [
    {
      slug: 'front_page',
      cron: '0 6 * * *',
      timeZone: 'Europe/Berlin',
      input: { topics: ['postgres', 'ai'] },
    },
  ],
})
  .input<{ topics: string[] }>()
  .resources<{ articles: Articles }>()
  .map({ slug: 'articles', items: 'run.topics' }, async (topic: string, { signal, resources }) => ({
    topic,
    titles: await resources.articles.about(topic, signal),
  }))
  .step('text', ['articles'], ({ articles }) =>
    articles.map(({ topic, titles }) => `${topic}: ${titles.join(', ')}`).join('\n'),
  )
