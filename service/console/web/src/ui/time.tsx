/** A time in UTC, as evidence names it; the local time stands in the title. */
export function Time({ at }: { at: string }) {
  const time = new Date(at);
  if (Number.isNaN(time.getTime())) return <span>unknown time</span>;
  return (
    <time dateTime={at} title={time.toLocaleString()}>
      {utc(time)}
    </time>
  );
}

/** Return "2026-11-28 19:46:28 UTC". */
export function utc(time: Date): string {
  return `${time.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** Return how long ago, in the largest unit that fits: "3 h". */
export function ago(at: string, now: number = Date.now()): string {
  const seconds = Math.max(0, (now - new Date(at).getTime()) / 1000);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}
