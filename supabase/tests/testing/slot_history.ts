import type { Sql } from 'postgres'
import { PgoutputDecoder } from '../../../local/src/realtime/pgoutput.ts'

/*
 * Every change of who holds a slot, and of limits, as a row: so the log of the database has them in the order of commits, which no
 * connection that looks again and again would see in full.
 */
const SCHEMA = `
  create schema slot_history;
  create table slot_history.changes (task text, keys text, limit_slug text, running int, in_force boolean);

  create function slot_history.tg_step_tasks()
  returns trigger
  language plpgsql
  security definer
  as $$
  declare
    held_before text[] := case when tg_op <> 'INSERT' and old.waits_for is null then old.slot_keys end;
    held_after text[] := case when tg_op <> 'DELETE' and new.waits_for is null then new.slot_keys end;
    task pgflow.step_tasks := coalesce(new, old);
  begin
    if held_before is distinct from held_after then
      insert into slot_history.changes (task, keys)
      values (concat_ws(' ', task.run_id, task.step_slug, task.task_index), to_json(held_after));
    end if;
    return null;
  end
  $$;
  create trigger slot_history after insert or update or delete on pgflow.step_tasks
    for each row execute function slot_history.tg_step_tasks();

  create function slot_history.tg_limits()
  returns trigger
  language plpgsql
  security definer
  as $$
  begin
    insert into slot_history.changes (limit_slug, running, in_force) values (new.limit_slug, new.running, false);
    return null;
  end
  $$;
  create trigger slot_history after insert or update on pgflow.limits
    for each row execute function slot_history.tg_limits();`

/** From now on; `admin` may read the log. */
export async function recordSlots(sql: Sql, admin: Sql): Promise<void> {
  await sql.unsafe(SCHEMA)
  await admin`create publication slot_history for table slot_history.changes`
  await admin`select pg_create_logical_replication_slot('slot_history', 'pgoutput')`
}

/** Notes that no transaction is open any more that has begun before the limit was changed: it is in force from now on. */
export async function noteInForce(sql: Sql, limitSlug: string): Promise<void> {
  const others = await sql<{ virtualtransaction: string }[]>`
    select virtualtransaction from pg_locks join pg_stat_activity using (pid)
    where locktype = 'virtualxid' and granted and backend_type = 'client backend' and pid <> pg_backend_pid()`
  const ids = others.map(({ virtualtransaction }) => virtualtransaction)
  const open = () => sql`
    select from pg_locks where locktype = 'virtualxid' and granted and virtualtransaction = any (${ids}) limit 1`
  while ((await open()).length > 0);
  await sql`
    insert into slot_history.changes (limit_slug, running, in_force)
    select limit_slug, running, true from pgflow.limits where limit_slug = ${limitSlug}`
}

export interface SlotHistory {
  /** Commits after which a key had more slots than its limit, which has none of its own in force before or after a change. */
  excesses: string[]
  /** The most that any key of a limit had. */
  peaks: Record<string, number>
  /** Who holds a slot at the end. */
  held: string[]
}

/** What has happened since it was last asked. A key without a limit of its own is that of a map's concurrency. */
export async function slotHistory(admin: Sql, concurrency: number): Promise<SlotHistory> {
  const messages = await admin<{ xid: string; data: Buffer }[]>`
    select xid::text, data from pg_logical_slot_get_binary_changes(
      'slot_history', null, null, 'proto_version', '1', 'publication_names', 'slot_history'
    )`
  const decoder = new PgoutputDecoder()
  const held = new Map<string, string[]>()
  const taken = new Map<string, number>()
  const allowed = new Map<string, number>([['', concurrency]])
  const history: SlotHistory = { excesses: [], peaks: {}, held: [] }
  let grown = new Set<string>()
  const limitOf = (key: string) => key.slice(0, key.indexOf(':'))
  const count = (key: string, by: number) => {
    taken.set(key, (taken.get(key) ?? 0) + by)
    if (by > 0) grown.add(key)
  }

  for (const [n, { xid, data }] of messages.entries()) {
    const row = decoder.decode(data)?.row
    const text = (column: string) => row?.get(column)?.toString() ?? null
    const task = text('task')
    const limit = text('limit_slug')
    if (task !== null) {
      for (const key of held.get(task) ?? []) count(key, -1)
      const keys: string[] = JSON.parse(text('keys') ?? '[]')
      for (const key of keys) count(key, 1)
      held.set(task, keys)
    }
    if (limit !== null) {
      const running = Number(text('running'))
      // Who has looked at the limit before it was changed may admit tasks up to the older one.
      const isInForce = text('in_force') === 't'
      allowed.set(limit, isInForce ? running : Math.max(running, allowed.get(limit) ?? 0))
    }
    if (messages[n + 1]?.xid === xid) continue
    for (const key of grown) {
      const slots = taken.get(key)!
      const limit = limitOf(key)
      history.peaks[limit] = Math.max(history.peaks[limit] ?? 0, slots)
      if (slots > allowed.get(limit)!)
        history.excesses.push(`${slots} of ${key} after ${xid}, not ${allowed.get(limit)}`)
    }
    grown = new Set()
  }
  history.held = [...held].flatMap(([task, keys]) => (keys.length > 0 ? [`${task}: ${keys}`] : []))
  return history
}
