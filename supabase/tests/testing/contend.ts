import { setImmediate } from 'node:timers/promises'
import type { ReservedSql, Sql } from 'postgres'

/** One statement of a race; `$1` is the round's run, `$2` its number. It answers with one JSON value. */
export type Statement = string

export interface Outcome {
  round: number
  run_id: string | null
  contender: number
  answer: unknown
  sqlstate: string | null
  message: string | null
}

/**
 * What happens on each connection. At the start of a round contender 0 arranges it; then all wait for each other, and
 * run their statements, each in a transaction of its own.
 *
 * The barrier needs no clock: whoever has not arrived holds a lock that the others ask for. A contender takes the next
 * round's lock before it lets go of this one's, so that nobody overtakes.
 */
const SCHEMA = `
  create schema race;
  create table race.rounds (race text, round int, run_id uuid, primary key (race, round));
  create table race.outcomes (
    race text, round int, contender int, answer jsonb, sqlstate text, message text,
    primary key (race, round, contender)
  );

  create procedure race.meet(gate int, contender int, contenders int)
  language plpgsql
  as $$
  begin
    perform pg_advisory_lock(gate + 1, contender);
    perform pg_advisory_unlock(gate, contender);
    for other in 0..contenders - 1 loop
      if other <> contender then
        perform pg_advisory_lock_shared(gate, other);
        perform pg_advisory_unlock_shared(gate, other);
      end if;
    end loop;
  end
  $$;

  -- Works for up to a millisecond, another time for each round, so that nobody always comes first.
  create procedure race.lag(round int, contender int)
  language plpgsql
  as $$
  begin
    for i in 1..hashint8(round * 16 + contender) & 31 loop
      perform md5(repeat('lag', 5000));
    end loop;
  end
  $$;

  create procedure race.contend(race text, contender int, contenders int, arrange text, statement text)
  language plpgsql
  as $$
  declare
    next record;
    answer jsonb;
    code text;
    message text;
  begin
    for next in select r.round, r.run_id from race.rounds r where r.race = contend.race order by r.round loop
      call race.meet(2 * next.round, contender, contenders);
      commit;
      if contender = 0 and arrange is not null then
        execute arrange using next.run_id, next.round;
        commit;
      end if;
      call race.meet(2 * next.round + 1, contender, contenders);
      commit;
      call race.lag(next.round, contender);
      answer := null; code := null; message := null;
      begin
        execute statement into answer using next.run_id, next.round;
      exception when others then
        get stacked diagnostics code = returned_sqlstate, message = message_text;
      end;
      commit;
      insert into race.outcomes values (race, next.round, contender, answer, code, message);
      commit;
    end loop;
  end
  $$;

  create function race.settle(run_id uuid, step_slug text, task_index int, attempt int, result jsonb)
  returns jsonb
  language sql
  as $$
    select to_jsonb(s.applied) from pgflow.settle_tasks(jsonb_build_array(result || jsonb_build_object(
      'run_id', run_id, 'step_slug', step_slug, 'task_index', task_index, 'attempt', attempt
    ))) s
  $$;

  create function race.claim(flow_slug text, quantity int)
  returns jsonb
  language sql
  as $$
    select coalesce(jsonb_agg(t), '[]') from pgflow.claim_tasks(array[flow_slug], quantity, null) t
  $$;

  -- Ends the lease of whoever has the run's messages.
  create function race.expire(flow_slug text, run_id uuid)
  returns void
  language plpgsql
  as $$
  begin
    execute format('update pgmq.%I set vt = ''-infinity'' where message ->> ''run_id'' = $1', 'q_' || flow_slug)
    using run_id::text;
  end
  $$`

export async function createRaces(sql: Sql): Promise<void> {
  await sql.unsafe(SCHEMA)
}

/** Lets statements race for all the rounds of a race, each on a connection of its own. */
export async function contend(
  sql: Sql,
  race: string,
  statements: readonly Statement[],
  arrange: Statement | null = null,
): Promise<Outcome[]> {
  const connections = await Promise.all(statements.map(() => sql.reserve()))
  try {
    await Promise.all(connections.map((connection, n) => connection`select pg_advisory_lock(2, ${n}::int)`))
    await Promise.all(
      connections.map(
        (connection, n) =>
          connection`call race.contend(${race}, ${n}, ${statements.length}, ${arrange}, ${statements[n]!})`,
      ),
    )
    return await outcomesOf(sql, race)
  } finally {
    await Promise.all(connections.map(release))
  }
}

/** Resolves when a transaction waits for another. */
export async function untilSomebodyWaits(sql: Sql): Promise<void> {
  while ((await sql`select from pg_locks where not granted`).length === 0) await setImmediate()
}

async function release(connection: ReservedSql): Promise<void> {
  await connection`select pg_advisory_unlock_all()`
  connection.release()
}

function outcomesOf(sql: Sql, race: string): Promise<Outcome[]> {
  return sql<Outcome[]>`
    select round, run_id, contender, answer, sqlstate, message
    from race.outcomes join race.rounds using (race, round)
    where race = ${race}
    order by round, contender`
}
