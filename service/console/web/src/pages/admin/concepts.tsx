/** Concepts: every version, what its calibration measured, and how often it flagged. */
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import type { Schemas } from "@/api/client";
import { useScope } from "@/app/session";
import { Badge, CalibratedBadge } from "@/ui/badge";
import { Field } from "@/ui/field";
import { percent, whole } from "@/ui/numbers";
import { Estimate } from "@/ui/share";
import { Absent, Empty, Failed, Loading } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { conceptsOf, RANGE_AT_FIRST } from "./ahead";
import { RANGES, type Range, rate, short } from "./figures";
import { Scroll } from "./parts";

type Version = Schemas["ListedConceptVersion"];

export default function Concepts() {
  const may = useScope("flags:read");
  const [range, setRange] = useState<Range>(RANGE_AT_FIRST);
  const found = useQuery({ ...conceptsOf(range), enabled: may });
  if (!may) {
    return (
      <Absent
        what="Concepts"
        why={
          <>
            Your key or group lacks the scope <code>flags:read</code>.
          </>
        }
      />
    );
  }
  return (
    <>
      <p className="quiet">
        Concepts are the operator's file: a change is a new version there, and a version without a measured
        rate raises leads alone until <code>subtext calibrate concepts</code> measured it.
      </p>
      <Field label="Flagged requests of the">
        <select value={range} onChange={(event) => setRange(event.target.value as Range)}>
          {Object.entries(RANGES).map(([value, name]) => (
            <option key={value} value={value}>
              {name}
            </option>
          ))}
        </select>
      </Field>
      {found.isPending && <Loading what="concepts" />}
      {found.error !== null && <Failed error={found.error} retry={() => void found.refetch()} />}
      {found.data?.items.length === 0 && <Empty>No worker has brought a concept yet.</Empty>}
      {found.data !== undefined && found.data.items.length > 0 && <p>{found.data.label}</p>}
      {found.data?.items.map((one) => (
        <section key={`${one.model}/${one.concept}`} className="panel">
          <h2>
            <Untrusted text={one.concept} limit={80} />
          </h2>
          <p className="quiet">
            on <Untrusted text={one.model} limit={200} />, {whole(one.versions.length)}{" "}
            {one.versions.length === 1 ? "version" : "versions"}
          </p>
          <Versions of={one.versions} concept={one.concept} />
        </section>
      ))}
    </>
  );
}

function Versions({ of, concept }: { of: readonly Version[]; concept: string }) {
  return (
    <Scroll label={`Versions of ${concept}`}>
      <table>
        <thead>
          <tr>
            <th scope="col">Version</th>
            <th scope="col">In force</th>
            <th scope="col">False-positive rate</th>
            <th scope="col">Rule</th>
            <th scope="col">Flagged of those read</th>
            <th scope="col">Definition</th>
          </tr>
        </thead>
        <tbody>
          {of.map((one) => (
            <tr key={one.digest}>
              <th scope="row">
                {one.version ?? "without number"}
                <br />
                <code>{short(one.digest)}</code>
              </th>
              <td>
                <InForce of={one} />
                <br />
                <span className="quiet">
                  used since <Time at={one.used_since} />
                </span>
              </td>
              <td>
                <CalibratedBadge calibrated={one.status === "calibrated"} />
                <br />
                {one.false_positive_rate !== null ? (
                  <span className="number">
                    {rate(one.false_positive_rate)}
                    {one.false_positive_rate.is_held_out === false && ", on what the rule was chosen on"}
                  </span>
                ) : (
                  "not measured"
                )}
                {one.not_calibrated_because !== null && (
                  <p className="quiet">
                    <Untrusted text={one.not_calibrated_because} limit={300} />
                  </p>
                )}
              </td>
              <td>
                {one.severity ?? "no severity"};{" "}
                {one.positions_required === null
                  ? "number of positions not known"
                  : `${one.positions_required} verified positions${
                      one.positions_judged === null ? "" : ` of the first ${one.positions_judged}`
                    }`}
                {one.target_false_positive_rate !== null &&
                  `; at most ${percent(one.target_false_positive_rate)} of benign requests asked for`}
              </td>
              <td>
                {one.flagged.estimate === null ? (
                  `${whole(one.flagged.flagged)} flagged; no request was read, so there is no share`
                ) : (
                  <>
                    {whole(one.flagged.flagged)} of {whole(one.flagged.read)}:{" "}
                    <Estimate
                      estimate={one.flagged.estimate}
                      lower={one.flagged.lower}
                      upper={one.flagged.upper}
                      n={one.flagged.read}
                      confidence={one.flagged.confidence}
                    />
                  </>
                )}
              </td>
              <td>
                <details>
                  <summary>Show</summary>
                  <Untrusted text={JSON.stringify(one.definition, null, 2)} className="mono" />
                </details>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function InForce({ of }: { of: Version }) {
  if (of.is_in_force === null)
    return <Badge title="No worker reported within five minutes.">not known</Badge>;
  return of.is_in_force ? <Badge tone="good">in force</Badge> : <Badge>no longer</Badge>;
}
