/** What a woken person has to see first: what was found, how far to trust it, and what was not looked at. */
import { memo, type ReactNode, useMemo } from "react";
import { Link } from "wouter";
import type { Schemas } from "@/api/client";
import { AskForText } from "@/app/purpose";
import { Badge, CalibratedBadge, HypothesisBadge, type Tone } from "@/ui/badge";
import { decimal, percent, pValue, whole } from "@/ui/numbers";
import { Share } from "@/ui/share";
import { Failed, Loading } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { type Positions, useSummary } from "./data";
import { type Row, readingOf, tally } from "./rows";

type Props = {
  id: string;
  capture: Schemas["Capture"];
  incidents: readonly Schemas["Incident"][] | undefined;
  positions: Positions;
  decoder: string | null;
  isWithheld: boolean;
  onSelect: (index: number) => void;
};

export const Verdicts = memo(function Verdicts(props: Props) {
  const { id, capture, incidents, positions, decoder, isWithheld, onSelect } = props;
  return (
    <div className="verdicts">
      <Found {...{ capture, incidents, positions, decoder, onSelect }} />
      <Said id={id} capture={capture} isWithheld={isWithheld} />
      <Looked {...{ capture, positions, decoder }} />
    </div>
  );
});

/** Worst first; what is not known by name comes before what is. */
const ORDER = ["info", "warning", "high", "critical"];
const bySeverity = (one: Schemas["Flag"], other: Schemas["Flag"]) =>
  rank(other.severity) - rank(one.severity);
const rank = (severity: string) => (ORDER.includes(severity) ? ORDER.indexOf(severity) : ORDER.length);
const SEVERITY: Record<string, Tone> = { critical: "bad", high: "bad", warning: "warning" };
const LISTED = 12;

function Found({ capture, incidents, positions, decoder, onSelect }: Omit<Props, "id" | "isWithheld">) {
  const own = (incidents ?? []).filter((one) => one.capture_id === capture.capture_id);
  return (
    <section className="panel" aria-label="What was found">
      <h2>What was found</h2>
      {capture.flags.length === 0 && (
        <p>
          <strong>No flag.</strong> That does not mean clean: see what was looked at.
        </p>
      )}
      {[...capture.flags].sort(bySeverity).map((flag) => (
        <div key={flag.id} className="verdict">
          <p className="row">
            <Badge tone={SEVERITY[flag.severity] ?? "plain"}>{flag.severity}</Badge>
            <strong>
              <Untrusted text={flag.concept} limit={80} />
            </strong>
            {flag.concept_version !== null && <span className="quiet">version {flag.concept_version}</span>}
            <CalibratedBadge calibrated={flag.calibrated} />
            <HypothesisBadge />
          </p>
          <p>
            <span className="number">
              {whole(flag.positions_matched)} of {whole(flag.positions_verified)} verified positions
              matched; {whole(flag.positions_required)} are required
            </span>
            , at layer {flag.layer}.{" "}
            {flag.false_positive_rate === null ? (
              "A lead: how often it is wrong was not measured."
            ) : (
              <span className="number">
                Wrong on {percent(flag.false_positive_rate)} of{" "}
                {flag.calibration_requests === null
                  ? "benign requests (how many is not stored)"
                  : `${whole(flag.calibration_requests)} benign requests`}
                {flag.false_positive_rate_upper !== null &&
                  `, at most ${percent(flag.false_positive_rate_upper)} with 95% confidence`}
                .
              </span>
            )}
          </p>
          <Matched
            concept={flag.concept}
            isHere={flag.layer === positions.layer}
            {...{ positions, decoder, onSelect }}
          />
        </div>
      ))}
      {capture.anomaly_tests.length === 0 && (
        <p className="quiet">Not tested for being an anomaly: it is tested once, when it is complete.</p>
      )}
      {capture.anomaly_tests.map((test) => (
        <div key={test.id} className="verdict">
          <p className="row">
            <Badge tone={test.is_discovery ? "warning" : "plain"}>
              {test.is_discovery ? "anomaly" : "no anomaly found"}
            </Badge>
            <span className="number">
              q {pValue(test.q_value)}, p {pValue(test.p_value)} of {whole(test.calibration_n)} benign
              requests
            </span>
            <HypothesisBadge />
          </p>
          <p>
            <span className="number">
              {whole(test.window.discoveries)} of the {whole(test.window.requests)} requests of its window
              are discoveries at a false discovery rate of {decimal(test.window.fdr)}
            </span>
            , at layer {test.layer}.{" "}
            {test.is_discovery
              ? "Unlike the reference's traffic, which does not say that it is harmful."
              : "This does not say that it is harmless."}
          </p>
        </div>
      ))}
      {own.map((incident) => (
        <p key={incident.id}>
          <Link href={`/review/${incident.id}`} className="button primary">
            Review the incident
          </Link>{" "}
          <span className="quiet">
            {incident.severity}, {incident.state.replaceAll("_", " ")}, {incident.status}, at layer{" "}
            {incident.layer}
          </span>
        </p>
      ))}
      {incidents !== undefined && own.length === 0 && capture.flags.length > 0 && (
        <p className="quiet">No incident is open for it.</p>
      )}
    </section>
  );
}

function Matched({
  concept,
  isHere,
  positions,
  decoder,
  onSelect,
}: {
  concept: string;
  isHere: boolean;
  positions: Positions;
  decoder: string | null;
  onSelect: (index: number) => void;
}) {
  const { rows } = positions;
  const found = useMemo(
    () => (isHere ? matchedBy(rows, concept, decoder) : []),
    [isHere, rows, concept, decoder],
  );
  if (found.length === 0) return null;
  return (
    <p className="row">
      <span className="quiet">Positions</span>
      {found.slice(0, LISTED).map((index) => (
        <button key={index} type="button" className="small" onClick={() => onSelect(index)}>
          {rows[index]?.position}
        </button>
      ))}
      {found.length > LISTED && (
        <span className="quiet">
          {LISTED} of {whole(found.length)}
        </span>
      )}
    </p>
  );
}

/** Return the indices of the rows whose verified reading matched the concept. */
function matchedBy(rows: readonly Row[], concept: string, decoder: string | null): number[] {
  const found: number[] = [];
  rows.forEach((row, index) => {
    const reading = readingOf(row, decoder);
    if (reading?.verified && reading.concepts.includes(concept)) found.push(index);
  });
  return found;
}

function Said({ id, capture, isWithheld }: Pick<Props, "id" | "capture" | "isWithheld">) {
  const found = useSummary(id, capture, !isWithheld);
  const summary = found.data;
  return (
    <section className="panel" aria-label="What the readings say together">
      <h2>What the readings say together</h2>
      {isWithheld ? (
        <AskForText />
      ) : summary === undefined ? (
        found.error === null ? (
          <Loading what="the readings" />
        ) : (
          <Failed error={found.error} retry={() => void found.refetch()} />
        )
      ) : summary === null ? (
        <p>No reading of it carries claims, so there is no summary.</p>
      ) : (
        <>
          <p className="row">
            <HypothesisBadge />
          </p>
          <p className="said">
            <Untrusted text={summary.text} limit={400} />
          </p>
          {summary.area_probability !== null && (
            <p className="number">
              Mean probability {decimal(summary.area_probability)}, by the decoder itself, n{" "}
              {whole(summary.readings)} readings, verified or not.
            </p>
          )}
          {summary.kinds.length > 0 && (
            <ul className="plain-list">
              {summary.kinds.slice(0, 4).map((kind) => (
                <li key={kind.kind} className="number">
                  <Untrusted text={kind.kind} limit={80} />: named by {whole(kind.readings)} of{" "}
                  {whole(summary.readings)} readings, mean score {decimal(kind.mean_score)}
                </li>
              ))}
            </ul>
          )}
          <p className="hint">A likely theme. It never says that the request is about it.</p>
        </>
      )}
    </section>
  );
}

function Looked({ capture, positions, decoder }: Pick<Props, "capture" | "positions" | "decoder">) {
  const { coverage } = capture;
  const counted = useMemo(() => tally(positions.rows, decoder), [positions.rows, decoder]);
  return (
    <section className="panel" aria-label="What was looked at, and what was not">
      <h2>What was looked at, and what was not</h2>
      {positions.layer === null ? (
        <p className="quiet">Counting the positions…</p>
      ) : (
        <dl className="pairs">
          <Pair name={`Sampled, layer ${positions.layer}`}>
            <Share
              count={counted.sampled - counted.repeated}
              of={counted.sampled - counted.repeated + counted.between}
              what="positions up to the last one sampled"
            />
          </Pair>
          <Pair name="Explained">
            <Share count={counted.explained} of={counted.sampled} what="sampled" />
          </Pair>
          <Pair name="Verified">
            <Share count={counted.verified} of={counted.explained} what="explained" />
          </Pair>
          {!positions.isComplete && (
            <Pair name="Still to come">
              {whole(Math.max(0, positions.total - counted.sampled))} of {whole(positions.total)} sampled
            </Pair>
          )}
        </dl>
      )}
      <p>
        <strong>Not looked at:</strong> {whole(counted.between)}{" "}
        {counted.between === 1 ? "position" : "positions"} between these
        {counted.before > 0 &&
          `, of which ${whole(counted.before)} before the first: not sampled, or served from the prefix cache and never computed`}
        ; and whatever came after the last. How many that was is not stored.
      </p>
      {counted.repeated > 0 && (
        <p>
          {whole(counted.repeated)} {counted.repeated === 1 ? "position" : "positions"} came more than once:
          several requests share this id.
        </p>
      )}
      {coverage.truncated && capture.capture_id === null && (
        <p>
          Of {whole(coverage.positions_sampled)} samples the first {whole(coverage.positions_listed)} are
          shown; no more can be listed of what was stored before captures had an identity.
        </p>
      )}
      <details>
        <summary>Why these, and what nobody could see</summary>
        <ul>
          {coverage.reasons.map((reason) => (
            <li key={reason.reason}>
              <code>{reason.reason}</code>: {whole(reason.positions)} of {whole(coverage.positions_listed)},
              each with probability {decimal(reason.probability_min, 3)}
              {reason.probability_max !== reason.probability_min &&
                ` to ${decimal(reason.probability_max, 3)}`}
            </li>
          ))}
          {coverage.blind_spots.map((spot) => (
            <li key={spot.code}>{spot.detail}</li>
          ))}
        </ul>
        <p className="quiet">{coverage.statement}</p>
      </details>
      <p className="quiet">
        First captured <Time at={capture.first_captured_at} />
      </p>
    </section>
  );
}

function Pair({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
