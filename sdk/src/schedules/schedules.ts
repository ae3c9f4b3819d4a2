import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { PgflowClient } from '../client/client.ts'
import type { Connection, RequestOptions } from '../client/connection.ts'
import { whyInvalid } from '../client/explain.ts'
import type { AnyFlows, FlowName, FlowOf, SlugOf } from '../client/flows.ts'
import { checkJson } from '../client/json.ts'
import { invalid } from '../client/options.ts'
import type { AnyFlow, InputOf, ScheduleTiming } from '../flow/index.ts'
import { secondsOf } from '../shared/duration.ts'
import { checkOptions } from './options.ts'
import type { ScheduleRow } from './types.ts'

/** Whose schedule is meant. */
export interface ScheduleOwner extends RequestOptions {
  /** The id of the user, for a client with a secret key. @default the signed-in user; with a secret key, nobody */
  readonly ownerId?: string
}

export interface ScheduleOptions extends ScheduleTiming, ScheduleOwner {
  /** Names the schedule, if the user has several of the flow. @default the slug of the flow */
  readonly slug?: string
  /** A Standard Schema that validates the input before it is sent, for instance the flow's. */
  readonly schema?: StandardSchemaV1
}

export interface ScheduleListOptions<Name> extends RequestOptions {
  /** Schedules of this flow. */
  readonly flowSlug?: SlugOf<Name>
  /** Schedules of this user, for a client with a secret key. @default the signed-in user; with a secret key, everybody */
  readonly ownerId?: string
}

/**
 * The schedules of the signed-in user: flows start by themselves, and their runs belong to the user. The flow has to be defined
 * with `schedulable: true`.
 *
 * @example
 * const schedules = new PgflowSchedules(client)
 * const { timeZone } = Intl.DateTimeFormat().resolvedOptions()
 * const { next_at } = await schedules.set('digest', { topics: ['ai'] }, { cron: '0 7 * * *', timeZone })
 */
export class PgflowSchedules<Flows extends { readonly [Slug in keyof Flows]: AnyFlow } = AnyFlows> {
  readonly #connection: Connection

  constructor(client: PgflowClient<Flows>) {
    this.#connection = client.lives.connection
  }

  /**
   * Makes a schedule, or changes the one that has this slug. A pause stays.
   *
   * @throws InvalidInputError if an argument or option cannot be used, for an input that is not what the flow takes, for an
   *   expression or a time zone that is none, and with the reason why
   * @throws NotFoundError if there is no such flow
   * @throws ForbiddenError if the caller may not start the flow, if the flow is not schedulable, or if the user has as many
   *   schedules as they may have
   * @throws ConflictError if the schedule with this slug is one of another flow
   */
  async set<Name extends FlowName<Flows>>(
    flowSlug: SlugOf<Name>,
    input: InputOf<FlowOf<Flows, Name>>,
    options: ScheduleOptions,
  ): Promise<ScheduleRow<InputOf<FlowOf<Flows, Name>>>> {
    const names = 'cron! timeZone slug overlap catchUp catchUpWindow schema ownerId signal'
    checkOptions({ flowSlug, ...options }, `flowSlug! ${names}`)
    const reason = options.schema && (await whyInvalid(options.schema, [input]))
    if (reason) throw invalid(reason)
    const row = await this.#connection.call(
      'schedule_flow',
      {
        flow_slug: flowSlug,
        input: await checkJson<unknown>(input, 'input'),
        cron: options.cron,
        time_zone: options.timeZone,
        schedule_slug: options.slug,
        overlap: options.overlap,
        catch_up: options.catchUp,
        catch_up_window: secondsOf(options.catchUpWindow),
        owner_id: options.ownerId,
      },
      options,
    )
    // The caller has said of which flow it is.
    return row as ScheduleRow<InputOf<FlowOf<Flows, Name>>>
  }

  /**
   * All schedules of the user, up to 1,000, by their slugs; also those that the project has made for the user.
   *
   * @example
   * const [schedule] = await schedules.list({ flowSlug: 'digest' })
   */
  async list<Name extends FlowName<Flows> = keyof Flows & string>(
    options: ScheduleListOptions<Name> = {},
  ): Promise<ScheduleRow<InputOf<FlowOf<Flows, Name>>>[]> {
    checkOptions(options, 'flowSlug ownerId signal')
    const args = { flow_slug: options.flowSlug, owner_id: options.ownerId }
    // The caller has said of which flow they are.
    return (await this.#connection.call('list_schedules', args, options)) as ScheduleRow<
      InputOf<FlowOf<Flows, Name>>
    >[]
  }

  /**
   * Pauses a schedule: its times pass without a run.
   *
   * @throws NotFoundError if the user has no such schedule
   * @throws ForbiddenError if the project has made it
   */
  async pause(slug: string, options: ScheduleOwner = {}): Promise<ScheduleRow> {
    return this.#change('pause_schedule', slug, options)
  }

  /**
   * Resumes a paused schedule from its next time on.
   *
   * @throws as `pause`
   */
  async resume(slug: string, options: ScheduleOwner = {}): Promise<ScheduleRow> {
    return this.#change('resume_schedule', slug, options)
  }

  /**
   * Deletes a schedule. Runs that it has started go on.
   *
   * @throws as `pause`
   */
  async delete(slug: string, options: ScheduleOwner = {}): Promise<void> {
    await this.#change('delete_schedule', slug, options)
  }

  #change(
    name: 'pause_schedule' | 'resume_schedule' | 'delete_schedule',
    slug: string,
    options: ScheduleOwner,
  ): Promise<ScheduleRow> {
    checkOptions({ slug, ...options }, 'slug! ownerId signal')
    return this.#connection.call(name, { schedule_slug: slug, owner_id: options.ownerId }, options)
  }
}
