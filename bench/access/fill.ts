import type { Sql } from 'postgres'

export const owner = '11111111-1111-4111-8111-111111111111'
export const member = '22222222-2222-4222-8222-222222222222'
export const stranger = '33333333-3333-4333-8333-333333333333'
export const group = '44444444-4444-4444-8444-444444444444'

/** Inserts runs of one owner in one group, past triggers; a rule for teams; and grants the tables to users. */
export async function fillAccess(sql: Sql, runs: number): Promise<void> {
  await sql.unsafe(`
    select pgflow.create_flow('f', start_role => 'authenticated'), pgflow.add_step('f', 'a');
    set session_replication_role = replica;
    insert into pgflow.runs (
      run_id, flow_slug, status, input, output, owner_id, group_id, metadata, started_at, completed_at
    )
    select (pgflow.new_run_ids(1, at))[1], 'f', 'completed', '{"path": "README.md"}', '{"a": 1}', '${owner}', '${group}',
           jsonb_build_object('n', n), at, at
    from generate_series(1, ${runs}) n, lateral (select now() - (${runs} - n) * interval '1 minute') t (at);
    set session_replication_role = origin;
    create table public.members (user_id uuid, team_id uuid, primary key (user_id, team_id));
    insert into public.members values ('${member}', '${group}');
    create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text)
    returns boolean language sql stable security definer set search_path = pg_catalog, pg_temp as $$
      select coalesce(owner_id = pgflow.current_user_id(), false) or exists (
        select from public.members m where m.user_id = pgflow.current_user_id() and m.team_id = can_access_run.group_id
      )
    $$;
    grant select on pgflow.runs to authenticated`)
  await sql.unsafe('vacuum (analyze) pgflow.runs')
}
