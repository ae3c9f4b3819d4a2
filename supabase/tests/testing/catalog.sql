-- Everything that a database holds beside what Postgres and its extensions bring, one row an object, with all that belongs to
-- it: definition, order of columns, options, owner, privileges, comment.
with
  member as (select d.classid, d.objid from pg_depend d where d.deptype = 'e'),
  namespace as (
    select n.oid, n.nspname, n.nspowner, n.nspacl from pg_namespace n
    where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  ),
  relation as (
    select c.* from pg_class c join namespace n on n.oid = c.relnamespace
    where (c.tableoid, c.oid) not in (table member) and c.relkind <> 't'
      -- Realtime makes and drops these by itself.
      and not (n.nspname = 'realtime' and c.relname ~ '^messages_\d')
  ),
  object (kind, name, definition, owner, acl, comment) as (
    select 'schema', n.oid::regnamespace::text, '', n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)),
           obj_description(n.oid, 'pg_namespace')
    from namespace n
    union all
    select 'relation ' || r.relkind::text, r.oid::regclass::text,
           concat_ws(' ', r.relpersistence, r.reloptions, r.relrowsecurity, r.relforcerowsecurity, r.relreplident, (
             select format('%s %s %s %s %s', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqcycle)
             from pg_sequence s where s.seqrelid = r.oid
           ), case when r.relkind in ('v', 'm') then pg_get_viewdef(r.oid) end,
           case when r.relkind in ('i', 'I') then pg_get_indexdef(r.oid) end),
           r.relowner, case when r.relkind not in ('i', 'I', 'c') then
             coalesce(r.relacl, acldefault(case r.relkind when 'S' then 's' else 'r' end::"char", r.relowner))
           end, obj_description(r.oid, 'pg_class')
    from relation r
    union all
    select 'column', format('%s.%s', r.oid::regclass, a.attname),
           concat_ws(' ', row_number() over (partition by r.oid order by a.attnum), format_type(a.atttypid, a.atttypmod),
             a.attnotnull, a.attgenerated, a.attidentity, a.attstorage, a.attcompression, a.attoptions,
             a.attcollation::regcollation, a.attacl, pg_get_expr(d.adbin, d.adrelid)),
           null, null, col_description(r.oid, a.attnum)
    from relation r
    join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
    where r.relkind in ('r', 'p', 'v', 'm', 'c', 'f')
    union all
    select 'constraint', format('%s on %s', k.conname, k.conrelid::regclass),
           concat_ws(' ', pg_get_constraintdef(k.oid), k.convalidated), null, null, obj_description(k.oid, 'pg_constraint')
    from pg_constraint k join relation r on r.oid = k.conrelid
    union all
    select 'trigger', format('%s on %s', t.tgname, t.tgrelid::regclass), concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled),
           null, null, obj_description(t.oid, 'pg_trigger')
    from pg_trigger t join relation r on r.oid = t.tgrelid
    where not t.tgisinternal
    union all
    select 'policy', format('%s on %s', p.polname, p.polrelid::regclass),
           concat_ws(' ', p.polcmd, p.polpermissive, p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid),
             pg_get_expr(p.polwithcheck, p.polrelid)),
           null, null, obj_description(p.oid, 'pg_policy')
    from pg_policy p
    union all
    select 'function', p.oid::regprocedure::text, case when p.prokind in ('f', 'p') then pg_get_functiondef(p.oid) end,
           p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)), obj_description(p.oid, 'pg_proc')
    from pg_proc p join namespace n on n.oid = p.pronamespace
    where (p.tableoid, p.oid) not in (table member)
    union all
    select 'type ' || t.typtype::text, t.oid::regtype::text, (
             select string_agg(e.enumlabel, ' ' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid
           ), t.typowner, coalesce(t.typacl, acldefault('T', t.typowner)), obj_description(t.oid, 'pg_type')
    from pg_type t join namespace n on n.oid = t.typnamespace
    where (t.tableoid, t.oid) not in (table member) and t.typrelid not in (select c.oid from pg_class c where c.relkind <> 'c')
      and t.typelem = 0
    union all
    select 'default privileges', concat_ws(' ', d.defaclrole::regrole, d.defaclnamespace::regnamespace, d.defaclobjtype), '', null,
           d.defaclacl, null
    from pg_default_acl d
    union all
    select 'event trigger', e.evtname, e.evtfoid::regprocedure::text, e.evtowner, null, null from pg_event_trigger e
    union all
    select 'publication', concat_ws(' ', p.pubname, t.prrelid::regclass), '', p.pubowner, null, null
    from pg_publication p left join pg_publication_rel t on t.prpubid = p.oid
    union all
    select 'role', r.rolname, concat_ws(' ', r.rolcanlogin, r.rolsuper, r.rolbypassrls), null, null, null from pg_roles r
  )
select concat_ws(' ', o.kind, o.name) as name,
       concat_ws(e'\n', o.definition, 'owner ' || o.owner::regrole, (
         select 'acl ' || string_agg(privilege, ' ' order by privilege)
         from aclexplode(o.acl) a
         cross join lateral concat(case a.grantee when 0 then 'public' else a.grantee::regrole::text end, ':', a.privilege_type,
           case when a.is_grantable then '*' end, '/', a.grantor::regrole) privilege
       ), 'comment ' || o.comment) as definition
from object o
order by 1, 2
