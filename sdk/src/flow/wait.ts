import type { WaitRole } from './wait-types.ts'

export const waitRoles: readonly string[] = ['service_role', 'owner', 'authenticated'] satisfies WaitRole[]

/** Whether the option `by` of a wait is a role, and not the path of user ids. */
export function isWaitRole(by: unknown): by is WaitRole {
  return waitRoles.includes(by as string)
}
