/** The range in the page's address. Pure. */

export type Range = { from: string; to: string; resolution: "hour" | "day" };

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const FORM = /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2})/;

/** Return the range of an address; the last day to the whole hour where it names none. */
export function rangeOf(search: string, now: number): Range {
  const query = new URLSearchParams(search);
  const end = Math.ceil(now / HOUR_MS) * HOUR_MS;
  return {
    from: timeOf(query.get("from")) ?? new Date(end - DAY_MS).toISOString(),
    to: timeOf(query.get("to")) ?? new Date(end).toISOString(),
    resolution: query.get("resolution") === "day" ? "day" : "hour",
  };
}

/** Return an address's query for a range. */
export function searchOf({ from, to, resolution }: Range): string {
  return new URLSearchParams({ from, to, resolution }).toString();
}

/** Return a time as an input of type datetime-local takes it, in UTC. */
export function inputOf(time: string): string {
  return FORM.exec(time)?.[1] ?? "";
}

/** Return what such an input says, in UTC; null when it says nothing. */
export function timeOf(written: string | null): string | null {
  if (written === null) return null;
  const time = new Date(
    FORM.test(written) && !/(Z|[+-]\d\d:\d\d)$/.test(written) ? `${written}Z` : written,
  );
  return Number.isNaN(time.getTime()) ? null : time.toISOString();
}
