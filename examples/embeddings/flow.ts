import { Flow, NonRetryableError } from '@pgflow/sdk/flow'
import type { Sql } from 'postgres'
import type { Model } from './model.ts'

/** Stores documents with their embeddings. */
export const ImportDocuments = new Flow({ slug: 'import_documents' })
  .input<{ documents: { id: number; body: string }[] }>()
  .resources<{ sql: Sql; model: Model }>()

  // Each document is a task of its own, and the model gets a hundred of them in one request.
  .map(
    { slug: 'stored', items: 'run.documents', maxAttempts: 5, batch: { size: 100, wait: '1s' } },
    async (documents, { signal, resources: { sql, model } }) => {
      const texts = documents.map(({ body }) => body)
      const embeddings = await model.embed(texts, signal)
      const rows = documents.flatMap(({ id, body }, index) => {
        const embedding = embeddings[index]
        return embedding ? [{ document_id: id, body, embedding }] : []
      })
      // A task may be attempted again, so the rows are written in a way that can be repeated.
      if (rows.length > 0) {
        await sql`
          insert into public.documents ${sql(rows)}
          on conflict (document_id) do update set body = excluded.body, embedding = excluded.embedding`
      }
      return documents.map(({ id }, index) =>
        embeddings[index] ? id : new NonRetryableError(`The model has no embedding for document ${id}`),
      )
    },
  )

  .step('count', ['stored'], ({ stored }) => stored.length)
