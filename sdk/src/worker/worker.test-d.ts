import { describe, expectTypeOf, it } from 'vitest'
import { Flow } from '../flow/index.ts'
import { type ResourcesOfAll, startWorker, type Worker } from './index.ts'

const plain = new Flow<string>({ slug: 'plain' }).step('a', ({ run }) => run)
const mailing = new Flow<string, { mail: (text: string) => void }>({ slug: 'mailing' }).step('a', () => 1)
const paying = new Flow<string, { pay: (cents: number) => void }>({ slug: 'paying' }).step('a', () => 1)

const connection = 'postgresql://…'
const mail = (_text: string) => {}
const pay = (_cents: number) => {}

describe('startWorker', () => {
  it('needs no resources for flows that need none', () => {
    expectTypeOf(startWorker({ connection, flows: [plain] })).resolves.toEqualTypeOf<Worker>()
  })

  it('needs the resources of all its flows', () => {
    expectTypeOf<ResourcesOfAll<[typeof plain, typeof mailing, typeof paying]>>().toExtend<{
      mail: typeof mail
      pay: typeof pay
    }>()
    void startWorker({ connection, flows: [plain, mailing, paying], resources: { mail, pay } })
    // @ts-expect-error pay is missing
    void startWorker({ connection, flows: [plain, mailing, paying], resources: { mail } })
    // @ts-expect-error resources are missing
    void startWorker({ connection, flows: [mailing] })
  })

  it('takes one way to connect', () => {
    void startWorker({ url: 'https://…', secretKey: 'sb_secret_…', flows: [plain] })
    // @ts-expect-error the key is missing
    void startWorker({ url: 'https://…', flows: [plain] })
    // @ts-expect-error which of them?
    void startWorker({ connection, url: 'https://…', secretKey: 'sb_secret_…', flows: [plain] })
    // @ts-expect-error where is the database?
    void startWorker({ flows: [plain] })
    // @ts-expect-error which of them?
    void startWorker({ connection, sql: {} as import('postgres').Sql, flows: [plain] })
  })
})
