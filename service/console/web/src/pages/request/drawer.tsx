/** One position: what was read there, and every figure that says how far to trust it. */
import { useQuery } from "@tanstack/react-query";
import { type ReactNode, type RefObject, useRef } from "react";
import { ApiError, type Schemas } from "@/api/client";
import { AskForText } from "@/app/purpose";
import { useScope } from "@/app/session";
import { Badge, CalibratedBadge, HypothesisBadge, VerifiedBadge } from "@/ui/badge";
import { decimal, percent, pValue, whole } from "@/ui/numbers";
import { Share } from "@/ui/share";
import { Absent, Failed, Loading } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { useExplanation, useProof } from "./data";
import { FidelityPlot } from "./fidelity-plot";
import { bytes, isSame, rootOf } from "./proof";
import { isCalibrated, neighboursOf, type Row, readingOf, recurrence, tokenText } from "./rows";

type Props = {
  rows: readonly Row[];
  index: number;
  /** The position that was asked for, which may be none of those sampled. */
  asked: number | null;
  decoder: string | null;
  flags: readonly Schemas["Flag"][];
  heading: RefObject<HTMLHeadingElement | null>;
  onSelect: (index: number) => void;
  onClose: () => void;
};

export function Drawer({ rows, index, asked, decoder, flags, heading, onSelect, onClose }: Props) {
  const row = rows[index];
  const body = useRef<HTMLDivElement>(null);
  if (row === undefined) return null;
  const reading = readingOf(row, decoder);
  return (
    <aside className="drawer" aria-label="Reading" ref={body}>
      <div className="dialog-head">
        <h2 ref={heading} tabIndex={-1}>
          Position {whole(row.position)}{" "}
          {row.token_text !== null && <Untrusted className="mono token" text={tokenText(row)} limit={40} />}
        </h2>
        <div className="row">
          <button
            type="button"
            className="plain"
            aria-label="Previous sampled position"
            disabled={index === 0}
            onClick={() => onSelect(index - 1)}
          >
            ←
          </button>
          <button
            type="button"
            className="plain"
            aria-label="Next sampled position"
            disabled={index === rows.length - 1}
            onClick={() => onSelect(index + 1)}
          >
            →
          </button>
          <button type="button" className="plain" aria-label="Close the reading" onClick={onClose}>
            ✕
          </button>
        </div>
      </div>
      {asked !== null && asked !== row.position && (
        <Absent
          what={`Position ${whole(asked)}`}
          why="It was not sampled: nothing is known of it. The next sampled one is shown, or the last."
        />
      )}
      {reading === null ? (
        <Absent
          what="A reading"
          why="This position was sampled, and the decoder has not read it. That says nothing of what is there."
        />
      ) : (
        <Reading
          key={reading.explanation_id}
          {...{ rows, index, decoder, flags }}
          id={reading.explanation_id}
        />
      )}
      <Sampled row={row} />
    </aside>
  );
}

function Reading({
  id,
  rows,
  index,
  decoder,
  flags,
}: {
  id: string;
  rows: readonly Row[];
  index: number;
  decoder: string | null;
  flags: readonly Schemas["Flag"][];
}) {
  const found = useExplanation(id);
  if (found.isPending) return <Loading what="the reading" />;
  if (found.data === undefined) {
    return <Failed error={found.error ?? new Error("No answer.")} retry={() => void found.refetch()} />;
  }
  const explanation = found.data;
  return (
    <>
      <section aria-label="Text">
        <p className="row">
          <HypothesisBadge />
          <VerifiedBadge verified={explanation.fidelity.verified} />
          {!explanation.well_formed && <Badge tone="warning">format broken</Badge>}
        </p>
        {explanation.text === null ? (
          <AskForText />
        ) : (
          <p className="reading">
            <Untrusted text={explanation.text} limit={1500} />
          </p>
        )}
        {explanation.claims !== null && (
          <Claims
            claims={explanation.claims}
            candidates={explanation.fidelity.candidates}
            next={nextToken(rows, index)}
          />
        )}
      </section>
      <Part title="How well the text rebuilds it">
        <FidelityPlot fidelity={explanation.fidelity} />
      </Part>
      <Part title="Neighbours">
        <Neighbours {...{ rows, index, decoder, flags }} isShown={explanation.text !== null} />
      </Part>
      <Part title="Concepts">
        <Concepts explanation={explanation} flags={flags} />
      </Part>
      <Part title="Anomaly">
        <Anomaly anomaly={explanation.anomaly} />
      </Part>
      <Part title="Where it comes from">
        <dl className="pairs">
          <Pair name="Decoder">
            <Untrusted text={explanation.fidelity.decoder.name} limit={80} />{" "}
            <code title={explanation.fidelity.decoder.digest}>
              {explanation.fidelity.decoder.digest.slice(0, 12)}
            </code>
          </Pair>
          <Pair name="Best of">
            {explanation.fidelity.candidates} candidates
            {explanation.fidelity.margin !== null &&
              `, cosine ${decimal(explanation.fidelity.margin)} above the second`}
          </Pair>
          <Pair name="Compared with">{explanation.fidelity.position_class} positions</Pair>
          <Pair name="Read by">
            {explanation.configuration.worker === null ? (
              "a configuration that was not told"
            ) : (
              <code title={explanation.configuration.worker}>
                {explanation.configuration.worker.slice(0, 12)}
              </code>
            )}
          </Pair>
          <Pair name="Sampled by">
            {explanation.configuration.plugin === null ? (
              "a configuration that was not told"
            ) : (
              <code title={explanation.configuration.plugin}>
                {explanation.configuration.plugin.slice(0, 12)}
              </code>
            )}
          </Pair>
          <Pair name="Stored">
            <Time at={explanation.stored_at} />
          </Pair>
        </dl>
      </Part>
      <Part title="Evidence log">
        <Proof id={id} />
      </Part>
    </>
  );
}

function Part({ title, children }: { title: string; children: ReactNode }) {
  return (
    <section>
      <h3>{title}</h3>
      {children}
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

/** Return the token behind this one where it was sampled and is shown. */
function nextToken(rows: readonly Row[], index: number): string | null {
  const own = rows[index];
  const next = rows[index + 1];
  return own !== undefined && next?.position === own.position + 1 ? next.token_text : null;
}

function Claims({
  claims,
  candidates,
  next,
}: {
  claims: Schemas["Claims"];
  candidates: number;
  next: string | null;
}) {
  return (
    <dl className="pairs">
      <Pair name="Kind of text">
        <Untrusted text={claims.register} limit={80} />
      </Pair>
      <Pair name="Theme">
        {claims.area === null ? "the decoder is not sure" : <Untrusted text={claims.area} limit={80} />}
        {claims.area !== null && claims.areas[claims.area] !== undefined && (
          <span className="quiet">
            {" "}
            probability {decimal(claims.areas[claims.area] ?? 0)} by the decoder itself, not calibrated
          </span>
        )}
        {claims.topic !== null && (
          <>
            , <Untrusted text={claims.topic} limit={80} />
          </>
        )}
      </Pair>
      {claims.expects !== null && (
        <Pair name="Expects next">
          <Untrusted className="mono" text={claims.expects.replaceAll(" ", "·")} limit={40} />
          {claims.expects_agreement !== null &&
            ` (${percent(claims.expects_agreement)} of ${candidates} candidates agree)`}
          {"; "}
          {next === null
            ? "the next token was not sampled"
            : next === claims.expects
              ? "so it came"
              : "another came"}
        </Pair>
      )}
    </dl>
  );
}

function Neighbours({
  rows,
  index,
  decoder,
  flags,
  isShown,
}: {
  rows: readonly Row[];
  index: number;
  decoder: string | null;
  flags: readonly Schemas["Flag"][];
  isShown: boolean;
}) {
  const found = recurrence(rows, index, decoder);
  const nearest = neighboursOf(rows, index, 1);
  return (
    <>
      {found.length === 0 && (
        <p className="quiet">No concept matched here, so none can recur at its neighbours.</p>
      )}
      {found.map(({ concept, matched, neighbours }) => (
        <p key={concept}>
          <Untrusted text={concept} limit={80} /> at{" "}
          <Share count={matched} of={neighbours} what="sampled neighbours with a reading" />{" "}
          <CalibratedBadge calibrated={isCalibrated(flags, concept)} />
        </p>
      ))}
      <ul className="neighbours">
        {nearest.map((at) => {
          const row = rows[at];
          return row === undefined ? null : (
            <Neighbour
              key={at}
              row={row}
              decoder={decoder}
              isShown={isShown}
              from={rows[index]?.position ?? 0}
            />
          );
        })}
      </ul>
      <p className="hint">What one position says alone is weaker than what recurs; near ones share much.</p>
    </>
  );
}

function Neighbour({
  row,
  decoder,
  isShown,
  from,
}: {
  row: Row;
  decoder: string | null;
  isShown: boolean;
  from: number;
}) {
  const reading = readingOf(row, decoder);
  const found = useExplanation(isShown && reading !== null ? reading.explanation_id : null);
  const distance = row.position - from;
  return (
    <li>
      <span className="quiet number">
        {distance > 0 ? "+" : "−"}
        {whole(Math.abs(distance))}
      </span>{" "}
      {reading === null ? (
        <span className="quiet">no reading</span>
      ) : (
        <>
          <HypothesisBadge /> <VerifiedBadge verified={reading.verified} />{" "}
          {found.data?.text ? (
            <Untrusted text={found.data.text} limit={140} />
          ) : (
            <span className="quiet">…</span>
          )}
        </>
      )}
    </li>
  );
}

function Concepts({
  explanation,
  flags,
}: {
  explanation: Schemas["Explanation"];
  flags: readonly Schemas["Flag"][];
}) {
  if (explanation.matches.length === 0) {
    return <p className="quiet">The text matched none. That does not say that it is harmless.</p>;
  }
  return (
    <ul className="plain-list">
      {explanation.matches.map((match) => {
        const flag = flags.find((one) => one.concept === match.concept && one.layer === explanation.layer);
        return (
          <li key={`${match.concept} ${match.matcher}`}>
            <strong>
              <Untrusted text={match.concept} limit={80} />
            </strong>{" "}
            <CalibratedBadge calibrated={flag?.calibrated ?? false} /> by {match.matcher}, score{" "}
            {decimal(match.score)}.{" "}
            {flag === undefined ? (
              <span className="quiet">
                A match alone is no flag; its version stands in the configuration.
              </span>
            ) : (
              <span>
                Flagged{" "}
                {flag.concept_version === null
                  ? "by a version without a number"
                  : `by version ${flag.concept_version}`}
                {flag.concept_digest !== null && (
                  <>
                    {" "}
                    <code title={flag.concept_digest}>{flag.concept_digest.slice(0, 12)}</code>
                  </>
                )}
                .
              </span>
            )}
          </li>
        );
      })}
    </ul>
  );
}

function Anomaly({ anomaly }: { anomaly: Schemas["Anomaly"] | null }) {
  if (anomaly === null) return <Absent what="An anomaly score" why="This activation was not scored." />;
  return (
    <dl className="pairs">
      <Pair name="Score">
        <span className="number">{decimal(anomaly.score)}</span>{" "}
        <span className="quiet">
          (0: benign median; 1: benign 99th percentile;{" "}
          {anomaly.calibration_n === null
            ? "of how many is not stored"
            : `n ${whole(anomaly.calibration_n)} benign activations`}
          )
        </span>
      </Pair>
      <Pair name="p-value">
        {anomaly.p_value === null ? (
          "none: no calibration"
        ) : (
          <span className="number">
            {pValue(anomaly.p_value)}, of {whole(anomaly.calibration_n ?? 0)} benign activations
            {anomaly.p_value_floor !== null && `; the least possible is ${pValue(anomaly.p_value_floor)}`}.
            Not corrected for how many were tested.
          </span>
        )}
      </Pair>
    </dl>
  );
}

function Sampled({ row }: { row: Row }) {
  return (
    <Part title="How it was chosen">
      <dl className="pairs">
        <Pair name="Probability">
          <span className="number">{decimal(row.inclusion_probability, 4)}</span>{" "}
          <span className="quiet">that it was sampled at all</span>
        </Pair>
        <Pair name="Reason">
          <code>{row.reason}</code>
        </Pair>
        <Pair name="Phase">
          {row.phase === "prefill"
            ? "prompt (prefill)"
            : row.phase === "decode"
              ? "answer (decode)"
              : row.phase}
        </Pair>
        <Pair name="Captured">
          <Time at={row.captured_at} />
        </Pair>
      </dl>
    </Part>
  );
}

function Proof({ id }: { id: string }) {
  const isAllowed = useScope("audit:read");
  const proof = useProof(id, isAllowed);
  const checked = useQuery({
    queryKey: ["proof", id, "checked", proof.data?.root],
    enabled: proof.data !== undefined && window.isSecureContext,
    queryFn: async () => {
      const { entry, inclusion_proof, tree_size, root } = proof.data as Schemas["LogProof"];
      const led = await rootOf(entry.seq, tree_size, bytes(entry.leaf_hash), inclusion_proof.map(bytes));
      return led !== null && isSame(led, bytes(root));
    },
  });
  if (!isAllowed) {
    return (
      <p className="quiet">
        Your key or group lacks the scope <code>audit:read</code>, which shows the proof.
      </p>
    );
  }
  if (proof.isPending) return <Loading what="the proof" />;
  if (proof.data === undefined) {
    const { error } = proof;
    if (error instanceof ApiError && error.status === 404) {
      return <Absent what="A proof" why={error.message} />;
    }
    return <Failed error={error ?? new Error("No answer.")} retry={() => void proof.refetch()} />;
  }
  const { entry, inclusion_proof: path, tree_size, root } = proof.data;
  return (
    <>
      <p>
        {checked.data === true && (
          <Badge tone="good">in the log: {whole(path.length)} hashes lead to the root</Badge>
        )}
        {checked.data === false && <Badge tone="bad">the hashes do not lead to the root</Badge>}
        {checked.data === undefined && (
          <Badge tone="warning">not checked here: this address is not secure</Badge>
        )}
      </p>
      <dl className="pairs">
        <Pair name="Entry">
          <span className="number">
            {whole(entry.seq)} of {whole(tree_size)}
          </span>
          , <Time at={entry.at} />
        </Pair>
        <Pair name="Leaf">
          <code>{entry.leaf_hash}</code>
        </Pair>
        <Pair name="Root">
          <code>{root}</code>
        </Pair>
      </dl>
      <p className="hint">
        The signature of the root is not checked here: <code>subtext verify</code> does it by the public
        key.
      </p>
    </>
  );
}
