/** Shares and estimates: never without denominator or interval. */
import { decimal, percent, whole } from "@/ui/numbers";

/** "12 of 150 (8.0%)"; of nothing there is no share. */
export function Share({ of, count, what }: { count: number; of: number; what?: string }) {
  return (
    <span className="number">
      {whole(count)} of {whole(of)}
      {what && ` ${what}`}
      {of > 0 ? ` (${percent(count / of)})` : " (no share of nothing)"}
    </span>
  );
}

type Estimated = {
  estimate: number;
  lower: number | null;
  upper: number | null;
  /** Of how many. */
  n: number;
  confidence?: number;
  /** Shares are shown in per cent, means as decimals. */
  as?: "share" | "mean";
};

/** "8.0% [4.2%, 13.9%], n 150"; the interval's confidence stands in the title. */
export function Estimate({ estimate, lower, upper, n, confidence = 0.95, as = "share" }: Estimated) {
  const shown = as === "share" ? percent : decimal;
  const interval = lower === null || upper === null ? "no interval" : `[${shown(lower)}, ${shown(upper)}]`;
  return (
    <span className="number" title={`${percent(confidence)} interval`}>
      {shown(estimate)} {interval}, n {whole(n)}
    </span>
  );
}
