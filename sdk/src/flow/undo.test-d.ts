import { expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import { type Context, Flow, type StepOutputOf } from './index.ts'

interface Booking {
  id: string
  at: Date
}

const Trip = new Flow({ slug: 'trip' })
  .input<{ city: string; flights: string[]; on: Date }>()
  .resources<{ cancel: (id: string) => Promise<void> }>()

const book = async (_city: string): Promise<Booking> => ({ id: '7', at: new Date() })

test('behind its handler, the undo of a step gets its input and its output', () => {
  const flow = Trip.step({ slug: 'hotel' }, ({ run }) => book(run.city), {
    undo: async ({ run, output, error }, context) => {
      expectTypeOf(run).toEqualTypeOf<{ city: string; flights: string[]; on: string }>()
      expectTypeOf(output).toEqualTypeOf<{ id: string; at: string }>()
      expectTypeOf(error).toEqualTypeOf<string | null>()
      expectTypeOf(context.attempt).toEqualTypeOf<number>()
      await context.resources.cancel(output.id)
    },
  })
    .step('car', ['hotel'], ({ hotel }) => hotel.id.length, {
      maxAttempts: 2,
      undo: { handler: ({ output }) => output.toFixed(), maxAttempts: 10, timeout: '5m' },
    })
    .step('mail', () => true, { undo: ({ output }) => expectTypeOf(output).toEqualTypeOf<boolean>() })
  expectTypeOf<StepOutputOf<typeof flow, 'hotel'>>().toEqualTypeOf<{ id: string; at: string }>()
})

test('that of a map gets each completed item', () => {
  Trip.map({ slug: 'flights', items: 'run.flights' }, (flight) => ({ seat: flight.length }), {
    undo: ({ run, item, index, output }, { resources }) => {
      expectTypeOf(run.city).toEqualTypeOf<string>()
      expectTypeOf(item).toEqualTypeOf<string>()
      expectTypeOf(index).toEqualTypeOf<number>()
      expectTypeOf(output).toEqualTypeOf<{ seat: number }>()
      return resources.cancel(`${output.seat}`)
    },
  })
  const options = { slug: 'many', items: 'run.flights', batch: { size: 10 } } as const
  Trip.map(options, (flights) => flights.map((flight) => flight.length), {
    undo: ({ output }) => expectTypeOf(output).toEqualTypeOf<number>(),
  })
})

test('before the handler, the output is what its schema says, or what the undo declares', () => {
  const flow = Trip.step(
    {
      slug: 'hotel',
      output: z.object({ id: z.string() }),
      undo: ({ output }) => expectTypeOf(output).toEqualTypeOf<{ id: string }>(),
    },
    ({ run }) => ({ id: run.city }),
  )
    .step(
      { slug: 'car', dependsOn: ['hotel'], undo: ({ output }) => expectTypeOf(output).toBeUnknown() },
      ({ hotel }) => hotel.id.length,
    )
    .map(
      {
        slug: 'flights',
        items: 'run.flights',
        undo: async ({ item, output }: { item: string; output: { id: string } }, { signal }: Context) =>
          signal.aborted || item === output.id,
      },
      (id) => ({ id }),
    )
  expectTypeOf<StepOutputOf<typeof flow, 'car'>>().toEqualTypeOf<number>()
  expectTypeOf<StepOutputOf<typeof flow, 'flights'>>().toEqualTypeOf<{ id: string }[]>()
})

test('what cannot be undone', () => {
  const undo = () => undefined
  // @ts-expect-error a wait has no handler
  Trip.wait({ slug: 'a', undo })
  // @ts-expect-error neither has a sleep
  Trip.sleep({ slug: 'a', for: '1d', undo })
  // @ts-expect-error the hotel has no seat
  Trip.step({ slug: 'a' }, ({ run }) => book(run.city), { undo: ({ output }) => output.seat })
  // @ts-expect-error the output is no number
  Trip.step({ slug: 'a' }, ({ run }) => book(run.city), { undo: (_: { output: number }) => undefined })
  // @ts-expect-error an undo has no startDelay
  Trip.step('a', () => 1, { undo: { handler: undo, startDelay: '1m' } })
  // @ts-expect-error it is a function
  Trip.step('a', () => 1, { undo: true })
  // @ts-expect-error a flow has steps that are undone
  new Flow({ slug: 'a', undo })
})
