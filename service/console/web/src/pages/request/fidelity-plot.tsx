/** Cosine and FVE of one reading on one line, against what the texts of other vectors reach. */
import type { Schemas } from "@/api/client";
import { decimal, whole } from "@/ui/numbers";

const LOW = -0.5;
const WIDTH = 320;
const at = (value: number) => ((Math.min(1, Math.max(LOW, value)) - LOW) / (1 - LOW)) * (WIDTH - 16) + 8;

export function FidelityPlot({ fidelity }: { fidelity: Schemas["Fidelity"] }) {
  const {
    cosine,
    fve,
    fve_beyond_token: beyond,
    shuffled_fve_p95: shuffled,
    verified_above: above,
  } = fidelity;
  const marks = [
    { name: "cosine", value: cosine, y: 20, shape: "circle", against: null },
    { name: "FVE", value: fve, y: 46, shape: "square", against: beyond === null ? above : shuffled },
    ...(beyond === null
      ? []
      : [{ name: "FVE beyond the token", value: beyond, y: 72, shape: "diamond", against: above }]),
  ];
  return (
    <figure className="plot">
      <svg
        viewBox={`0 0 ${WIDTH} ${beyond === null ? 74 : 100}`}
        role="img"
        aria-label={marks
          .map(
            ({ name, value, against }) =>
              `${name} ${decimal(value)}${against === null ? "" : ` against ${decimal(against)}`}`,
          )
          .join("; ")}
      >
        {marks.map(({ name, value, y, shape, against }) => (
          <g key={name}>
            {against !== null && (
              <rect className="plot-null" x={at(LOW)} y={y - 7} width={at(against) - at(LOW)} height={14} />
            )}
            <line className="plot-axis" x1={at(LOW)} x2={at(1)} y1={y} y2={y} />
            {shape === "circle" && <circle className="plot-mark" cx={at(value)} cy={y} r={5} />}
            {shape === "square" && (
              <rect className="plot-mark" x={at(value) - 5} y={y - 5} width={10} height={10} />
            )}
            {shape === "diamond" && (
              <path className="plot-mark" d={`M${at(value)} ${y - 7}l6 7l-6 7l-6 -7z`} />
            )}
          </g>
        ))}
        {[LOW, 0, 0.5, 1].map((tick) => (
          <text
            key={tick}
            className="plot-tick"
            x={at(tick)}
            y={beyond === null ? 70 : 96}
            textAnchor="middle"
          >
            {decimal(tick, 1)}
          </text>
        ))}
      </svg>
      <dl className="pairs">
        {marks.map(({ name, value, shape, against }) => (
          <div key={name}>
            <dt>
              {{ circle: "●", square: "■", diamond: "◆" }[shape]} {name}
            </dt>
            <dd className="number">
              {decimal(value)}
              {against === null
                ? " (n 1: of this vector; what other texts reach is not measured)"
                : ` (95% of other vectors' texts: at most ${decimal(against)}, n ${whole(fidelity.calibration_n)})`}
            </dd>
          </div>
        ))}
      </dl>
      <figcaption className="hint">
        Shaded: what texts of other vectors reach, the shuffled null, of {whole(fidelity.calibration_n)}{" "}
        calibration readings. To the right of it, the text says something of this activation.
      </figcaption>
    </figure>
  );
}
