/** The readings that an incident stands on: hypotheses, each with its fidelity. */
import { useState } from "react";
import { Link } from "wouter";
import type { Schemas } from "@/api/client";
import { AskForText } from "@/app/purpose";
import { Badge, HypothesisBadge, VerifiedBadge } from "@/ui/badge";
import { decimal, pValue, whole } from "@/ui/numbers";
import { requestAddress } from "@/ui/request-address";
import { Empty } from "@/ui/states";
import { Untrusted } from "@/ui/untrusted";
import { whitespace } from "@/ui/visible";
import type { Report } from "./queue";

const AT_FIRST = 12;

export function Evidence({ incident }: { incident: Report }) {
  const [all, setAll] = useState(false);
  const found = incident.evidence;
  const listed = all ? found : found.slice(0, AT_FIRST);
  const isWithheld = found.some((one) => one.explanation.text_withheld);
  return (
    <section aria-labelledby="evidence">
      <h3 id="evidence">Readings it stands on</h3>
      {isWithheld && <AskForText />}
      {found.length === 0 && <Empty>No reading of this capture belongs to the evidence any more.</Empty>}
      <ol className="review-plain review-evidence">
        {listed.map((one) => (
          <li key={one.explanation.id} className="panel">
            <Reading found={one} />
          </li>
        ))}
      </ol>
      {found.length > listed.length && (
        <button type="button" onClick={() => setAll(true)}>
          Show all {whole(found.length)} readings
        </button>
      )}
      {incident.positions.evidence > found.length && (
        <p className="quiet">
          {whole(found.length)} of {whole(incident.positions.evidence)} positions are listed.
        </p>
      )}
    </section>
  );
}

function Reading({ found }: { found: Schemas["EvidencePosition"] }) {
  const { explanation, concepts, is_anomalous: isAnomalous } = found;
  return (
    <>
      <p className="row">
        <Link href={requestAddress(explanation, explanation.position)}>
          position {whole(explanation.position)}
        </Link>
        {explanation.token_text !== null && (
          <code>
            <Untrusted text={whitespace(explanation.token_text)} limit={80} />
          </code>
        )}
        <HypothesisBadge />
        <VerifiedBadge verified={explanation.fidelity.verified} />
        {concepts.map((concept) => (
          <Badge key={concept}>
            matched {concept}
            {!explanation.fidelity.verified && ", does not count"}
          </Badge>
        ))}
        {isAnomalous && <Badge tone="warning">anomalous</Badge>}
      </p>
      {explanation.text === null ? (
        <p className="quiet">Text withheld.</p>
      ) : (
        <p>
          <Untrusted text={explanation.text} />
        </p>
      )}
      <p className="quiet number">{fidelityOf(explanation)}</p>
    </>
  );
}

function fidelityOf({ fidelity, anomaly }: Schemas["Explanation"]): string {
  const measured =
    fidelity.fve_beyond_token === null
      ? `FVE ${decimal(fidelity.fve)}`
      : `FVE beyond the token ${decimal(fidelity.fve_beyond_token)}`;
  const parts = [
    `cosine ${decimal(fidelity.cosine)}`,
    `${measured}, verified above ${decimal(fidelity.verified_above)} (${whole(fidelity.calibration_n)} calibration readings)`,
  ];
  if (anomaly !== null && anomaly.p_value !== null && anomaly.calibration_n !== null) {
    parts.push(
      `anomaly p ${pValue(anomaly.p_value)} among ${whole(anomaly.calibration_n)} benign activations`,
    );
  }
  return parts.join("; ");
}
