import rsc from '@vitejs/plugin-rsc'
import type { InlineConfig } from 'vite'

/** How Vite builds the page: for the server components, for the HTML, and for the browser. */
export function serverConfig(outDir: string): InlineConfig {
  const input = (index: string, folder: string) => ({
    build: { outDir: `${outDir}/${folder}`, emptyOutDir: true, rolldownOptions: { input: { index } } },
  })
  return {
    configFile: false,
    root: import.meta.dirname,
    logLevel: 'error',
    plugins: [
      rsc({ serverHandler: false }),
      { name: 'pgflow-source', configEnvironment: () => ({ resolve: { conditions: ['pgflow-source'] } }) },
    ],
    environments: {
      rsc: input('./server.tsx', 'rsc'),
      ssr: input('./html.tsx', 'ssr'),
      client: input('./browser.tsx', 'client'),
    },
  }
}
