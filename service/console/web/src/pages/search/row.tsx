/** One reading in the list: what it says, and how far it can be trusted. */
import { memo } from "react";
import type { Schemas } from "@/api/client";
import { Badge, CalibratedBadge, HypothesisBadge, VerifiedBadge } from "@/ui/badge";
import { decimal, pValue, whole } from "@/ui/numbers";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import type { Range } from "./highlight";
import { Marked } from "./marked";

export type Reading = Schemas["Explanation"];

type Props = { reading: Reading; ranges: readonly Range[] };

/** Drawn once, however often another row is selected. */
export const Row = memo(function Row({ reading, ranges }: Props) {
  return (
    <article className="search-row">
      <div className="row">
        <HypothesisBadge />
        <VerifiedBadge verified={reading.fidelity.verified} />
        {!reading.well_formed && <Badge tone="warning">broken format</Badge>}
        <Matches matches={reading.matches} />
        <span className="quiet search-when">
          <Time at={reading.captured_at} />
        </span>
      </div>
      {reading.text === null ? (
        <p className="quiet search-text">Text withheld.</p>
      ) : (
        <p className="search-text">
          <Marked text={reading.text} ranges={ranges} />
        </p>
      )}
      <p className="quiet search-figures">
        <Untrusted text={reading.model} limit={60} />, layer {reading.layer}, position{" "}
        {whole(reading.position)} of <Untrusted text={reading.request_id} limit={60} />
      </p>
      <p className="quiet search-figures number">
        <Figures reading={reading} />
      </p>
    </article>
  );
});

function Figures({ reading: { fidelity, anomaly } }: { reading: Reading }) {
  const beyond = fidelity.fve_beyond_token;
  const compared = beyond ?? fidelity.fve;
  return (
    <>
      {beyond === null ? "FVE" : "FVE beyond the token"} {decimal(compared)}, null: 95% of other vectors'
      readings below {decimal(fidelity.verified_above)}, n {whole(fidelity.calibration_n)}; cosine{" "}
      {decimal(fidelity.cosine)}
      {anomaly?.p_value == null ? (
        "; anomaly not scored"
      ) : (
        <>
          ; anomaly p {pValue(anomaly.p_value)}
          {anomaly.calibration_n === null ? ", n unknown" : `, n ${whole(anomaly.calibration_n)}`}, not
          corrected for how many were tested
        </>
      )}
    </>
  );
}

function Matches({ matches }: { matches: Reading["matches"] }) {
  return matches.map((match) => (
    <span key={`${match.concept} ${match.matcher}`} className="search-match">
      <Badge title="The text matched this concept. A match alone is no flag.">
        match: <Untrusted text={match.concept} limit={60} /> ({match.matcher})
      </Badge>{" "}
      <CalibratedBadge calibrated={false} />
    </span>
  ));
}
