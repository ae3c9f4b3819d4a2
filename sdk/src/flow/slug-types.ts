import type { FlowTypeError } from './type-error.ts'

/** `Slug` if a step beside those with the slugs `Taken` may have this name, a `FlowTypeError` if not. */
export type NewSlug<Taken, Slug extends string> = string extends Slug
  ? Slug
  : string extends Taken
    ? ValidSlug<Slug>
    : Slug extends Taken
      ? FlowTypeError<`The flow already has a step '${Slug}': give this one another slug`>
      : ValidSlug<Slug>

type ValidSlug<Slug extends string> = Slug extends 'run'
  ? FlowTypeError<"'run' is the name of the run's input: give the step another slug">
  : Slug extends ''
    ? FlowTypeError<'A slug cannot be empty'>
    : Slug extends `${Digit}${string}`
      ? FlowTypeError<`The slug '${Slug}' starts with a digit: start it with a letter or an underscore`>
      : [SlugProblem<Slug>] extends [never]
        ? Slug
        : FlowTypeError<SlugProblem<Slug>>

type Digit = '0' | '1' | '2' | '3' | '4' | '5' | '6' | '7' | '8' | '9'

type SlugCharacter = Digit | Characters<'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_'>

type Characters<Text extends string, Found = never> = Text extends `${infer First}${infer Rest}`
  ? Characters<Rest, Found | First>
  : Found

type SlugProblem<
  Slug extends string,
  Rest extends string = Slug,
  Length extends unknown[] = [],
> = Rest extends `${infer First}${infer Others}`
  ? First extends SlugCharacter
    ? Length['length'] extends 128
      ? 'A slug has at most 128 characters'
      : SlugProblem<Slug, Others, [...Length, First]>
    : `The slug '${Slug}' has a '${First}': use only letters, digits and underscores`
  : never
