/** A value with its interval on an axis, for a table's cell: what it shows stands in the row as numbers too. */
import { place } from "@/ui/scale";
import "@/ui/figures.css";

type Props = {
  value: number;
  lower: number;
  upper: number;
  axis: readonly [number, number];
  /** Where a dashed line marks what values are compared with. */
  mark?: number;
};

const WIDTH = 200;
const at = (value: number, axis: readonly [number, number]) => 6 + place(value, axis) * (WIDTH - 12);

export function IntervalPlot({ value, lower, upper, axis, mark }: Props) {
  return (
    <svg
      className="interval-plot"
      viewBox={`0 0 ${WIDTH} 20`}
      preserveAspectRatio="none"
      aria-hidden="true"
    >
      {mark !== undefined && (
        <line className="mark-line" x1={at(mark, axis)} x2={at(mark, axis)} y1="0" y2="20" />
      )}
      <line x1={at(lower, axis)} x2={at(upper, axis)} y1="10" y2="10" />
      <circle cx={at(value, axis)} cy="10" r="4" />
    </svg>
  );
}
