/** What an incident was opened for, how far that can be trusted, and how often people confirmed the like. */
import type { Schemas } from "@/api/client";
import { CalibratedBadge, HypothesisBadge } from "@/ui/badge";
import { percent, pValue, whole } from "@/ui/numbers";
import { Estimate, Share } from "@/ui/share";
import { Absent, Failed, Loading } from "@/ui/states";
import { SeverityBadge } from "./badges";
import { usePrecision } from "./data";
import type { Report } from "./queue";

type Flag = Schemas["Flag"];

export function Findings({ incident }: { incident: Report }) {
  return (
    <section aria-labelledby="findings">
      <h3 id="findings">What was found</h3>
      <ul className="review-findings">
        {incident.flags.map((flag) => (
          <li key={flag.id} className="panel">
            <FlagFacts flag={flag} />
          </li>
        ))}
        {incident.discovery !== null && (
          <li className="panel">
            <AnomalyFacts found={incident.discovery} />
          </li>
        )}
      </ul>
      <Positions incident={incident} />
    </section>
  );
}

function FlagFacts({ flag }: { flag: Flag }) {
  const rate = flag.false_positive_rate;
  return (
    <>
      <p className="row">
        <strong>{flag.concept}</strong>
        {flag.concept_version !== null && <span className="quiet">version {flag.concept_version}</span>}
        <SeverityBadge severity={flag.severity} />
        <CalibratedBadge calibrated={flag.calibrated} />
        <HypothesisBadge />
      </p>
      <dl className="pairs">
        <div>
          <dt>Positions</dt>
          <dd>
            <Share
              count={flag.positions_matched}
              of={flag.positions_verified}
              what="verified positions matched"
            />
            ; {whole(flag.positions_required)} required
          </dd>
        </div>
        <div>
          <dt>False positives</dt>
          <dd className="number">
            {rate === null || flag.calibration_requests === null
              ? "no rate was measured on benign requests"
              : `${percent(rate)} of ${whole(flag.calibration_requests)} benign requests, ${limitOf(flag)}`}
          </dd>
        </div>
      </dl>
    </>
  );
}

function limitOf(flag: Flag): string {
  const upper = flag.false_positive_rate_upper;
  return upper === null ? "no upper limit" : `at most ${percent(upper)} (one-sided 95% limit)`;
}

function AnomalyFacts({ found }: { found: Schemas["RequestTest"] }) {
  return (
    <>
      <p className="row">
        <strong>anomaly of the whole request</strong>
        <HypothesisBadge />
      </p>
      <p className="number">
        p {pValue(found.p_value)} among {whole(found.calibration_n)} benign requests, q{" "}
        {pValue(found.q_value)}. It says that the request is unlike benign traffic, never that it is bad.
      </p>
    </>
  );
}

function Positions({ incident }: { incident: Report }) {
  const { read, verified, evidence, anomalous } = incident.positions;
  return (
    <p className="number">
      Positions read at layer {incident.layer}: <Share count={verified} of={read} what="verified" />,{" "}
      <Share count={evidence} of={read} what="evidence" />,{" "}
      <Share count={anomalous} of={read} what="anomalous" />
      {anomalous > 0 && ", not corrected for how many were tested"}. Positions that were not sampled are not
      counted here.
    </p>
  );
}

/** Measured precision of the detectors that raised the incident's flags. */
export function PrecisionStrip({ incident }: { incident: Report }) {
  const precision = usePrecision(incident.model);
  if (incident.flags.length === 0) {
    return <Absent what="Measured precision" why="Anomalies have no concept that people could confirm." />;
  }
  return (
    <section aria-labelledby="precision" className="panel">
      <h3 id="precision">Measured precision</h3>
      {precision.isPending && <Loading what="the labels so far" />}
      {precision.error !== null && (
        <Failed error={precision.error} retry={() => void precision.refetch()} />
      )}
      <ul className="review-plain">
        {incident.flags.map((flag) => (
          <li key={flag.id}>
            <strong>{flag.concept}</strong>:{" "}
            <Measured found={precision.data?.items.find((one) => isOf(one, flag))} />
          </li>
        ))}
      </ul>
      <p className="quiet">
        Of flags that people labelled, by the same decoder and definitions; not of all flags.
      </p>
    </section>
  );
}

function isOf(one: Schemas["ConceptPrecision"], flag: Flag): boolean {
  return (
    one.concept === flag.concept &&
    one.layer === flag.layer &&
    one.severity === flag.severity &&
    one.decoder.id === flag.decoder.id &&
    one.concepts_digest === flag.concepts_digest
  );
}

function Measured({ found }: { found: Schemas["ConceptPrecision"] | undefined }) {
  if (found === undefined) return <>not counted yet</>;
  const labelled = found.confirmed + found.dismissed;
  if (found.precision === null) return <>no label yet, of {whole(found.raised)} flags raised</>;
  const { estimate, lower, upper, confidence } = found.precision;
  return (
    <>
      {whole(found.confirmed)} of {whole(labelled)} confirmed,{" "}
      <Estimate estimate={estimate} lower={lower} upper={upper} n={labelled} confidence={confidence} />;{" "}
      <Share count={found.raised - labelled} of={found.raised} what="flags without a label" />
    </>
  );
}
