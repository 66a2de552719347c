/** A decoder's card: what its verdicts stand on, and its readings beside nulls. */
import { useId } from "react";
import type { Schemas } from "@/api/client";
import { IntervalPlot } from "@/ui/interval-plot";
import { decimal, whole } from "@/ui/numbers";
import { span } from "@/ui/scale";
import { Scroll } from "@/ui/scroll";
import { Absent } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { type Figure, figuresOf, isNull, words } from "./card";

type Decoder = Schemas["Decoder"];
/** What other vectors' readings may pass by construction. */
const NOMINAL = 0.05;

export function DecoderCard({ decoder }: { decoder: Decoder }) {
  const id = useId();
  const figures = figuresOf(decoder.card);
  const measured = figures.filter(({ group }) => group === "calibration");
  const shares = measured.filter(({ name }) => name.includes("verified_share"));
  const fidelity = measured.filter(({ name }) => /fve|cosine/.test(name));
  const others = figures.filter((one) => !shares.includes(one) && !fidelity.includes(one));
  return (
    <section className="panel" aria-labelledby={id}>
      <h2 id={id}>
        Decoder <Untrusted text={decoder.name} limit={120} />
      </h2>
      <Identity decoder={decoder} />
      <h3>Readings beside nulls</h3>
      {fidelity.length === 0 ? (
        <Absent
          what="Fidelity against nulls"
          why="The decoder's card tells of no calibration with intervals."
        />
      ) : (
        <Figures
          figures={fidelity}
          caption="How well vectors are rebuilt from texts: from their own reading, and from what should tell nothing of them."
          axis={span(
            fidelity.flatMap(({ lower, upper }) => [lower, upper]),
            [0],
          )}
          mark={0}
        />
      )}
      <h3>How often readings and nulls pass as verified</h3>
      {shares.length === 0 ? (
        <Absent what="The calibration curve" why="The decoder's card tells of no verified shares." />
      ) : (
        <Figures
          figures={shares}
          caption="By class of position. The dashed line is 5%: thresholds are set so that one in twenty of other vectors' readings passes."
          axis={[0, 1]}
          mark={NOMINAL}
        />
      )}
      {others.length > 0 && (
        <details>
          <summary>{whole(others.length)} further figures of the card</summary>
          <Figures figures={others} caption="As the card has them; each with its 95% interval." />
        </details>
      )}
    </section>
  );
}

function Identity({ decoder }: { decoder: Decoder }) {
  const thresholds = Object.entries(decoder.verified_above ?? {});
  return (
    <dl className="pairs">
      <Pair name="Reads">
        <Untrusted text={decoder.model} limit={120} />, layer {decoder.layer}
      </Pair>
      <Pair name="Digest">
        <code>{decoder.digest}</code>
      </Pair>
      <Pair name="First used">
        <Time at={decoder.created_at} />
      </Pair>
      <Pair name="Readings of each vector">{whole(decoder.candidates)}, of which the best is kept</Pair>
      <Pair name="Verified above">
        {thresholds.length > 0
          ? thresholds.map(([place, value]) => `${place} ${decimal(value)}`).join(", ")
          : `${decimal(Math.max(0, decoder.shuffled_fve_p95))}, for all positions`}
        , from n {whole(decoder.calibration_n)} readings
      </Pair>
      <Pair name="Mean predictor's error">
        {decimal(decoder.fve_baseline)} on unit vectors, n {whole(decoder.calibration_n)}
      </Pair>
    </dl>
  );
}

function Pair({ name, children }: { name: string; children: React.ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

type Props = { figures: Figure[]; caption: string; axis?: readonly [number, number]; mark?: number };

function Figures({ figures, caption, axis, mark }: Props) {
  return (
    <Scroll label="Figures">
      <table>
        <caption>{caption}</caption>
        <thead>
          <tr>
            <th scope="col">Figure</th>
            <th scope="col">Value and 95% interval</th>
            <th scope="col">n</th>
            {axis && <td aria-hidden="true" />}
          </tr>
        </thead>
        <tbody>
          {figures.map((one) => (
            <tr key={`${one.group} ${one.name}`}>
              <th scope="row">
                {!axis && <span className="quiet">{words(one.group)}: </span>}
                {words(one.name)}
                {isNull(one) && <span className="quiet"> (null)</span>}
              </th>
              <td className="number">
                {decimal(one.value)} [{decimal(one.lower)}, {decimal(one.upper)}]
              </td>
              <td className="number">{whole(one.n)}</td>
              {axis && (
                <td aria-hidden="true">
                  <IntervalPlot {...one} axis={axis} {...(mark === undefined ? {} : { mark })} />
                </td>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}
