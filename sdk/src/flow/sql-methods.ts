import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { ValidCondition } from './condition-types.ts'
import type { StepFallback, StepTiming, TaskOptions } from './definition.ts'
import type { Conditional, Flow, Named } from './flow.ts'
import type { NewSlug } from './slug-types.ts'
import type { FunctionName } from './sql-types.ts'
import type { TypeOf } from './type.ts'
import type { Deps, FlowTypes, SkipsOf, StoredPayload, WithStep } from './types.ts'
import type { WaitOutput, WaitOutputOption } from './wait-types.ts'

/** The part of a flow that adds SQL steps. */
export interface SqlMethods<F extends FlowTypes> {
  /**
   * Adds a step whose work is an SQL function of the database, `(payload jsonb) returns jsonb`. What it writes and the completion of the
   * step are committed together, or neither is. No worker runs it: the database calls it when a worker or pg_cron ticks.
   *
   * @throws FlowDefinitionError for what the compiler could not see: a slug, dep or option that cannot work.
   *
   * @example
   * .sql({ slug: 'saved', call: 'public.save_embeddings', dependsOn: ['embeddings'], output: type<{ rows: number }>() })
   */
  sql<
    const Slug extends string,
    const Call extends string,
    const Dep extends string = never,
    const If = never,
    const Unless = never,
    const Unmet extends StepFallback = 'skip-cascade',
    const Exhausted extends StepFallback = 'fail',
    Out extends StandardSchemaV1 | TypeOf<unknown> = never,
  >(
    step: Named<NewSlug<keyof F['steps'], Slug>, Deps<keyof F['steps'], Dep>> &
      Conditional<
        ValidCondition<If, StoredPayload<F, Dep>>,
        ValidCondition<Unless, StoredPayload<F, Dep>>,
        Unmet
      > &
      SqlSettings<FunctionName<Call>, Exhausted, WaitOutputOption<Out>>,
  ): Flow<WithStep<F, Slug, Dep, WaitOutput<Out>, SkipsOf<If, Unless, Unmet, Exhausted>, 'sql', null>>
}

interface SqlSettings<Call, Exhausted, Out> extends StepTiming, Pick<TaskOptions, 'deadline'> {
  /**
   * The function, with its schema: `'public.save_embeddings'`. Names with capitals or other signs are quoted, as in SQL:
   * `'public."saveEmbeddings"'`. It takes one `jsonb`, the payload `{ run, <dep>: … }`, and returns `jsonb`.
   */
  readonly call: Call
  /**
   * A Standard Schema of what the function returns, or its type: `type<{ rows: number }>()`. The database validates it where it has
   * `pg_jsonschema`. @default any JSON value
   */
  readonly output?: Out
  /** What becomes of a step whose last attempt failed; see `whenUnmet`. @default 'fail' */
  readonly whenExhausted?: Exhausted
}
