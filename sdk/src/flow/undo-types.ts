import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Context } from './context.ts'
import type { RetryOptions } from './definition.ts'
import type { JsonOf } from './json-types.ts'
import type { StoredOutput } from './schema-types.ts'
import type { FlowTypes } from './types.ts'

/** What the undo of a step gets. */
export interface UndoPayload<Run = unknown, Output = unknown> {
  /** What the run was started with, as it is stored. */
  readonly run: Run
  /** What the step has returned, as it is stored. */
  readonly output: Output
  /** The error of a run that has failed; the reason of one that was cancelled, if it has one. */
  readonly error: string | null
}

/** What the undo of a map gets, for each of its completed items. */
export interface UndoItemPayload<Run = unknown, Item = unknown, Output = unknown>
  extends UndoPayload<Run, Output> {
  readonly item: Item
  /** The index of the item, from 0. */
  readonly index: number
}

/** Undoes what a step has done. What it returns is not stored. */
export type UndoHandler<Payload, Resources extends object> = (
  payload: Payload,
  context: Context<Resources>,
) => unknown

/** A handler, or one with options of its own; else it has those of the step. */
export type Undo<Handler> = Handler | ({ readonly handler: Handler } & RetryOptions)

interface UndoSettings<Handler> {
  /**
   * Undoes what the step has done, when its run fails or is cancelled with `undo`: in a run of its own, after the undo of all
   * steps that depend on this one. Of a map it runs for each completed item. Behind the handler, as the third argument, it has the
   * type of the output.
   * @default what it has done stays as it is
   */
  readonly undo?: Undo<Handler>
}

/** The option behind the handler, whose output is known there. */
export type UndoOption<F extends FlowTypes, Output> = UndoSettings<
  UndoHandler<UndoPayload<JsonOf<F['input']>, Output>, F['resources']>
>

export type UndoItemOption<F extends FlowTypes, Item, Output> = UndoSettings<
  UndoHandler<UndoItemPayload<JsonOf<F['input']>, Item, Output>, F['resources']>
>

/** The option before the handler: the output is what its schema says, or what the undo declares (`Declared`). */
export type EarlyUndoOption<F extends FlowTypes, Out extends StandardSchemaV1, Declared> = UndoOption<
  F,
  EarlyOutput<Out, Declared>
>

export type EarlyUndoItemOption<
  F extends FlowTypes,
  Item,
  Out extends StandardSchemaV1,
  Declared,
> = UndoItemOption<F, Item, EarlyOutput<Out, Declared>>

type EarlyOutput<Out extends StandardSchemaV1, Declared> = [Out] extends [never]
  ? Declared
  : StoredOutput<never, Out>
