import type { WebhookProvider } from '../../flow/wait-types.ts'
import { WorkerStartError } from '../errors.ts'

/** How the URLs of waits are made and recognised. */
export interface WebhookSettings {
  /**
   * Where requests reach `serveWorker` or `webhookHandler`: `https://<project>.supabase.co/functions/v1/flow-worker`. What
   * is added to it is `/waits/<flow>/<run>/<step>/<token>`.
   */
  readonly url: string
  /** Of which the tokens are made: 16 characters or more, the same for all workers and handlers. */
  readonly key: string
  /** The signing secrets of the providers that waits name (`webhook: 'stripe'`). */
  readonly secrets?: { readonly [Provider in WebhookProvider]?: string | undefined }
}

/** @throws WorkerStartError if webhooks cannot work with these settings */
export function checkWebhooks(webhooks: WebhookSettings): void {
  if (!/^https?:\/\//.test(webhooks.url)) {
    throw new WorkerStartError(`webhooks.url is ${webhooks.url}: give it the URL at which requests arrive`)
  }
  if (!(webhooks.key?.length >= 16)) {
    throw new WorkerStartError('webhooks.key is missing or short: give it 16 characters or more')
  }
}

/**
 * The settings that the environment has: `PGFLOW_WEBHOOK_KEY`, and the providers' secrets as `STRIPE_WEBHOOK_SECRET`,
 * `GITHUB_WEBHOOK_SECRET`, `SLACK_SIGNING_SECRET` and `STANDARD_WEBHOOK_SECRET`. Requests arrive at the Edge Function
 * `flow-worker` of `SUPABASE_URL`, or at `PGFLOW_WEBHOOK_URL`. `undefined` without a key.
 *
 * @example
 * serveWorker({ flows, secret, ...projectFrom(env), webhooks: webhooksFrom(env) })
 */
export function webhooksFrom(
  environment: Readonly<Record<string, string | undefined>>,
): WebhookSettings | undefined {
  const { SUPABASE_URL = '', PGFLOW_WEBHOOK_KEY: key, PGFLOW_WEBHOOK_URL } = environment
  if (!key) return undefined
  return {
    url: PGFLOW_WEBHOOK_URL ?? `${SUPABASE_URL}/functions/v1/flow-worker`,
    key,
    secrets: {
      stripe: environment.STRIPE_WEBHOOK_SECRET,
      github: environment.GITHUB_WEBHOOK_SECRET,
      slack: environment.SLACK_SIGNING_SECRET,
      standard: environment.STANDARD_WEBHOOK_SECRET,
    },
  }
}
