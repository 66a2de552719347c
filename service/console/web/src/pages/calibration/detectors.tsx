import type { Schemas } from "@/api/client";
import { CalibratedBadge } from "@/ui/badge";
import { IntervalPlot } from "@/ui/interval-plot";
import { percent, whole } from "@/ui/numbers";
import { Scroll } from "@/ui/scroll";
import { Estimate, Share } from "@/ui/share";
import { Empty } from "@/ui/states";
import { Untrusted } from "@/ui/untrusted";

type Recall = Schemas["CanaryRecall"];

export function Detectors({ found }: { found: Schemas["DetectorList"] }) {
  if (found.items.length === 0 && found.without_flags.length === 0) {
    return <Empty>No concept was flagged in this time, and no canary ran: nothing is known of any.</Empty>;
  }
  return (
    <Scroll label="Concepts">
      <table>
        <caption>
          Precision is of the flags that people labelled, the false-positive rate of benign requests of the
          calibration, recall of the operator's own prompts: none of them is the rate on all traffic.
        </caption>
        <thead>
          <tr>
            <th scope="col">Concept</th>
            <th scope="col">False-positive rate</th>
            <th scope="col">Precision</th>
            <td aria-hidden="true" />
            <th scope="col">Canary recall</th>
          </tr>
        </thead>
        <tbody>
          {found.items.map((one) => (
            <tr key={`${one.model} ${one.layer} ${one.concept} ${one.decoder.id} ${one.concepts_digest}`}>
              <th scope="row">
                <Untrusted text={one.concept} limit={80} />{" "}
                <CalibratedBadge calibrated={one.status === "calibrated"} />
                <div className="quiet">
                  <Untrusted text={one.model} limit={80} />, layer {one.layer}
                </div>
              </th>
              <td className="number">
                {one.false_positive_rate ? (
                  <>
                    {percent(one.false_positive_rate.estimate)}, at most{" "}
                    {percent(one.false_positive_rate.upper)} (95%, one-sided), n{" "}
                    {whole(one.false_positive_rate.requests)}
                  </>
                ) : (
                  "not measured: its flags are leads"
                )}
              </td>
              <td>
                {one.precision ? (
                  <Estimate {...one.precision} n={one.precision.labelled} />
                ) : (
                  "not known: nobody labelled a flag"
                )}
                <div className="quiet">
                  without a label:{" "}
                  <Share count={one.unlabelled.numerator} of={one.unlabelled.denominator} what="flags" />
                </div>
              </td>
              <td aria-hidden="true">
                {one.precision && (
                  <IntervalPlot
                    value={one.precision.estimate}
                    lower={one.precision.lower}
                    upper={one.precision.upper}
                    axis={[0, 1]}
                  />
                )}
              </td>
              <td>
                <RecallOf canaries={one.canaries ?? null} />
              </td>
            </tr>
          ))}
          {found.without_flags.map((one) => (
            <tr key={`${one.model} ${one.canaries.concept}`}>
              <th scope="row">
                <Untrusted text={one.canaries.concept} limit={80} />
                <div className="quiet">
                  <Untrusted text={one.model} limit={80} />
                </div>
              </th>
              <td>no flag in this time</td>
              <td>no flag in this time</td>
              <td aria-hidden="true" />
              <td>
                <RecallOf canaries={one.canaries} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function RecallOf({ canaries }: { canaries: Recall | null }) {
  if (canaries === null) return <>not known: no canary has run</>;
  if (!canaries.recall) return <>not known: none of {whole(canaries.read + canaries.lost)} was read</>;
  return (
    <>
      <Estimate {...canaries.recall} />
      {canaries.lost > 0 && (
        <div className="quiet">
          lost: <Share count={canaries.lost} of={canaries.read + canaries.lost} what="canaries" />
        </div>
      )}
    </>
  );
}
