/** Counts by step as stacked bars. Whoever shows them gives the same numbers as a table. */
import { whole } from "@/ui/numbers";
import { utc } from "@/ui/time";
import "@/ui/figures.css";

export type StepBar = { start: string; values: readonly number[] };

type Props = {
  /** What is counted, for screen readers. */
  label: string;
  /** Names of the values, at most three, the lowest first. */
  names: readonly string[];
  bars: readonly StepBar[];
};

const HEIGHT = 100;
/** As many steps as fill the width: fewer stand at the left, and none looks like a wall. */
const FILLING = 15;

export function StepBars({ label, names, bars }: Props) {
  const highest = Math.max(1, ...bars.map((bar) => sum(bar.values)));
  return (
    <figure>
      <svg
        className="step-bars"
        role="img"
        aria-label={`${label}: ${bars.length} steps, at most ${whole(highest)} in one`}
        viewBox={`0 0 ${Math.max(FILLING, bars.length)} ${HEIGHT}`}
        preserveAspectRatio="none"
      >
        {bars.map((bar, index) => (
          <g key={bar.start}>
            <title>
              {utc(new Date(bar.start))}
              {names.map((name, kind) => `, ${name} ${whole(bar.values[kind] ?? 0)}`)}
            </title>
            {bar.values.map((value, kind) => {
              const below = (sum(bar.values.slice(0, kind)) / highest) * HEIGHT;
              const height = (value / highest) * HEIGHT;
              return (
                <rect
                  key={names[kind]}
                  className={`s${kind + 1}`}
                  x={index + 0.08}
                  width={0.84}
                  y={HEIGHT - below - height}
                  height={height}
                />
              );
            })}
          </g>
        ))}
      </svg>
      <figcaption className="key quiet">
        {label}, at most {whole(highest)} in one step:
        {names.map((name, kind) => (
          <span key={name}>
            <span className={`s${kind + 1}`} />
            {name}
          </span>
        ))}
      </figcaption>
    </figure>
  );
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
