-- Chapter 29: cron expressions: what they say, and the times that they name in a time zone.
--
-- Five fields, as in Vixie cron and pg_cron: minute, hour, day of the month, month, day of the week. Days of the month and of the
-- week both have to match if one of the two fields begins with `*`; else one of them is enough.
--
-- Clocks change. A time of day that does not exist on a day moves to the end of the gap; one that exists twice counts once, the
-- first time. An expression whose hour begins with `*` follows elapsed time instead: it names the hour that is repeated twice,
-- and none for the hour that is missing.

create type pgflow.cron_fields as (
  minutes int[],
  hours int[],
  days int[],
  months int[],
  weekdays int[],
  is_elapsed boolean,
  both_days boolean
);
comment on type pgflow.cron_fields is
  'A cron expression: the values of its fields, in order; Sunday is 0. both_days: a date has to be in days and in weekdays.';

-- The values of one field, in order. Raises PT400 with the field and the reason.
create function pgflow.cron_field(expression text, field text, name text, lowest int, highest int, names text[])
returns int[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  part text;
  bounds text[];
  step int;
  ends int[];
  found int[] := '{}';
  problem text;
begin
  if field = '*' then
    return array(select generate_series(lowest, highest)); -- the usual ones, at a tenth of the time
  elsif field ~ '^[0-9]{1,2}$' and field::int between lowest and highest then
    return array[field::int];
  end if;
  foreach part in array string_to_array(field, ',') loop
    bounds := regexp_match(part, '^(\*|([a-z0-9]+)(-([a-z0-9]+))?)(/([0-9]{1,9}))?$');
    step := coalesce(bounds[6]::int, 1);
    -- A name stands for its number.
    ends := array(
      select case when b.word ~ '^[0-9]{1,9}$' then b.word::int else array_position(names, b.word) + lowest - 1 end
      from unnest(case when bounds[1] = '*' then array[lowest::text, highest::text] else array[bounds[2], coalesce(bounds[4], bounds[2])] end)
        with ordinality as b (word, n)
      order by b.n
    );
    if bounds[4] = 'sun' and ends[1] > 0 then
      ends[2] := 7; -- fri-sun
    end if;
    problem := case
      when part = '' then 'it is empty, or has a comma too many'
      when bounds is null then format('"%s" is not a value, a range, or one of them with a step', part)
      when ends[1] is null or ends[2] is null then format(
        '"%s" is not a number%s', case when ends[1] is null then bounds[2] else bounds[4] end,
        ', nor one of ' || array_to_string(names, ', ')
      )
      when ends[1] not between lowest and highest then format('%s is not between %s and %s', ends[1], lowest, highest)
      when ends[2] not between lowest and highest then format('%s is not between %s and %s', ends[2], lowest, highest)
      when ends[1] > ends[2] then format('the range %s ends before it begins', bounds[1])
      when bounds[5] is not null and bounds[1] <> '*' and bounds[4] is null
      then format('a step needs a range or * before it: %s-%s%s', bounds[1], highest, bounds[5])
      when step not between 1 and highest - lowest + 1 then format('a step of %s is not between 1 and %s', step, highest - lowest + 1)
    end;
    if problem is not null then
      raise exception using
        errcode = 'PT400',
        message = format('the %s of the cron expression "%s" is invalid: %s', name, left(expression, 200), problem),
        hint = 'The fields are minute (0-59), hour (0-23), day of the month (1-31), month (1-12 or jan-dec) and day of the week (0-7 or sun-sat): 30 7 * * mon-fri.';
    end if;
    found := found || array(select generate_series(ends[1], ends[2], step));
  end loop;
  return array(select distinct value from unnest(found) value order by value);
end
$$;

-- What a cron expression says. Raises PT400 where it is none, or names no date at all.
--   select pgflow.parsed_cron('30 7 * * mon-fri');
create function pgflow.parsed_cron(expression text)
returns pgflow.cron_fields
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  trimmed text := lower(btrim(expression, E' \t\r\n'));
  field text[] := regexp_split_to_array(
    case trimmed
      when '@hourly' then '0 * * * *'
      when '@daily' then '0 0 * * *'
      when '@midnight' then '0 0 * * *'
      when '@weekly' then '0 0 * * 0'
      when '@monthly' then '0 0 1 * *'
      when '@yearly' then '0 0 1 1 *'
      when '@annually' then '0 0 1 1 *'
      else trimmed
    end, '\s+'
  );
  months constant text[] := '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}';
  weekdays constant text[] := '{sun,mon,tue,wed,thu,fri,sat}';
  parsed pgflow.cron_fields;
begin
  if cardinality(field) is distinct from 5 then
    raise exception using
      errcode = 'PT400',
      message = format(
        'the cron expression "%s" does not have five fields, but %s', left(expression, 200),
        case when trimmed <> '' then cardinality(field) else 0 end
      ),
      hint = 'Write minute, hour, day of the month, month and day of the week, such as 30 7 * * mon-fri; or @hourly, @daily, @weekly, @monthly, @yearly.';
  end if;
  parsed.minutes := pgflow.cron_field(expression, field[1], 'minute', 0, 59, null);
  parsed.hours := pgflow.cron_field(expression, field[2], 'hour', 0, 23, null);
  parsed.days := pgflow.cron_field(expression, field[3], 'day of the month', 1, 31, null);
  parsed.months := pgflow.cron_field(expression, field[4], 'month', 1, 12, months);
  parsed.weekdays := array(
    select distinct day % 7 from unnest(pgflow.cron_field(expression, field[5], 'day of the week', 0, 7, weekdays)) day
    order by 1
  );
  parsed.is_elapsed := starts_with(field[2], '*');
  parsed.both_days := starts_with(field[3], '*') or starts_with(field[5], '*');
  if parsed.both_days and not exists (
    select from unnest(parsed.months) m (month), unnest(parsed.days) d (day)
    where d.day <= case when m.month = 2 then 29 when m.month in (4, 6, 9, 11) then 30 else 31 end
  ) then
    raise exception using
      errcode = 'PT400',
      message = format('the cron expression "%s" names no date: its months do not have such a day', left(expression, 200)),
      hint = 'Choose a day of the month that exists; there is no word for the last one: name the 1st of the next month instead.';
  end if;
  return parsed;
end
$$;

-- The name of a time zone as the database has it. Raises PT400 where there is none.
create function pgflow.checked_time_zone(name text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  known text;
begin
  if checked_time_zone.name = 'UTC' then
    return 'UTC'; -- the default, and it costs 20 ms to read all names
  end if;
  select z.name into known from pg_timezone_names z
  where lower(z.name) = lower(checked_time_zone.name) and z.name !~ '^(posix|right)/'
  limit 1;
  if known is null then
    raise exception using
      errcode = 'PT400',
      message = format('%s is not a time zone', coalesce(to_json(left(checked_time_zone.name, 100))::text, 'null')),
      hint = 'Use a name such as Europe/Berlin or UTC: select name from pg_timezone_names.';
  end if;
  return known;
end
$$;

-- The first `quantity` times of a cron expression in a time zone, after one time and not after another, in order. It looks at
-- the dates of one month after the other, for 50 years: 29 February is a Monday every 40 years at least.
create function pgflow.cron_times(fields pgflow.cron_fields, time_zone text, after timestamptz, until timestamptz, quantity int)
returns timestamptz[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  first_date constant date := (after at time zone time_zone)::date - 1; -- what moves out of a gap may belong to the day before
  last_date constant date := (least(until, after + interval '50 years') at time zone time_zone)::date + 1;
  bound timestamptz := until;
  month date := date_trunc('month', first_date);
  date_of date;
  offset_before interval;
  offset_after interval;
  midnight timestamptz;
  found timestamptz[] := '{}';
begin
  <<search>>
  while month <= last_date loop
    for date_of in
      select d.date_of
      from (select month + n as date_of from generate_series(0, 30) n) d
      cross join lateral (
        select extract(day from d.date_of)::int = any (fields.days), extract(dow from d.date_of)::int = any (fields.weekdays)
      ) hit (day, weekday)
      where extract(month from month)::int = any (fields.months)
        and date_trunc('month', d.date_of) = month
        and d.date_of between first_date and last_date
        and case when fields.both_days then hit.day and hit.weekday else hit.day or hit.weekday end
      order by d.date_of
    loop
      offset_before := ((date_of - 1)::timestamp at time zone 'UTC' at time zone time_zone) - (date_of - 1)::timestamp;
      offset_after := ((date_of + 2)::timestamp at time zone 'UTC' at time zone time_zone) - (date_of + 2)::timestamp;
      midnight := (date_of::timestamp at time zone 'UTC') - offset_before;
      if offset_before = offset_after then
        continue when midnight + interval '1 day' <= after;
        exit search when midnight > bound;
        found := found || array(
          select t.at
          from unnest(fields.hours) h
          cross join unnest(fields.minutes) m
          cross join lateral (select midnight + (h * 60 + m) * interval '1 minute' as at) t
          where t.at > after and t.at <= bound
          order by t.at
          limit quantity
        );
      else
        found := found || pgflow.cron_times_of_change(fields, time_zone, date_of, offset_before, offset_after, after, bound);
      end if;
      if cardinality(found) >= quantity then
        found := (array(select distinct t from unnest(found) t order by t))[:quantity];
        if cardinality(found) = quantity then
          bound := found[quantity]; -- the day after a change of the clock may have earlier ones
        end if;
      end if;
    end loop;
    loop
      month := month + interval '1 month';
      exit search when cardinality(found) >= quantity and month - 2 > bound;
      exit when extract(month from month)::int = any (fields.months);
    end loop;
  end loop;
  return (array(select distinct t from unnest(found) t order by t))[:quantity];
end
$$;

-- The same for a date on which the clock changes, or next to one: offsets from UTC are those of the day before and of the day
-- after.
create function pgflow.cron_times_of_change(
  fields pgflow.cron_fields,
  time_zone text,
  date_of date,
  offset_before interval,
  offset_after interval,
  after timestamptz,
  until timestamptz
)
returns timestamptz[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with
    wall as (
      select date_of + make_time(h, m, 0) as at
      from unnest(fields.hours) h
      cross join unnest(fields.minutes) m
    ),
    candidate as (
      select w.at, (w.at at time zone 'UTC') - offset_before as early, (w.at at time zone 'UTC') - offset_after as late
      from wall w
    ),
    moment as (
      select c.*, c.early at time zone time_zone = c.at as is_early, c.late at time zone time_zone = c.at as is_late
      from candidate c
    ),
    named as (
      select m.early as at from moment m where m.is_early
      union
      select m.late from moment m where m.is_late and (fields.is_elapsed or not m.is_early)
      union
      select (
        select min(t)
        from generate_series(least(m.early, m.late), greatest(m.early, m.late), interval '1 minute') t
        where t at time zone time_zone >= m.at
      )
      from moment m where not m.is_early and not m.is_late and not fields.is_elapsed
    )
  select coalesce(array_agg(n.at order by n.at), '{}')
  from named n
  where n.at > cron_times_of_change.after and n.at <= cron_times_of_change.until
$$;

-- The next times of a cron expression in a time zone.
--   select pgflow.next_times('30 7 * * mon-fri', 'Europe/Berlin');
create function pgflow.next_times(
  cron text,
  time_zone text default 'UTC',
  after timestamptz default pgflow.now(),
  quantity int default 5
)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if next_times.quantity is null or next_times.quantity not between 1 and 1000 or next_times.after is null
     or not isfinite(next_times.after) then
    raise exception using
      errcode = 'PT400',
      message = format('%s times after %s cannot be named', coalesce(next_times.quantity::text, 'null'), coalesce(next_times.after::text, 'null')),
      hint = 'Ask for 1 to 1,000 times after a time that is not infinite.';
  end if;
  return query
    select unnest(pgflow.cron_times(
      pgflow.parsed_cron(next_times.cron), pgflow.checked_time_zone(next_times.time_zone), next_times.after, 'infinity', next_times.quantity
    ));
end
$$;
comment on function pgflow.next_times is 'The next times of a cron expression in a time zone, 1,000 at most.';
