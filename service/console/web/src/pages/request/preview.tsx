/** The line below the strip: the token under the pointer, or the selected one, in words. */
import { useEffect, useState } from "react";
import type { Schemas } from "@/api/client";
import { CalibratedBadge, HypothesisBadge, VerifiedBadge } from "@/ui/badge";
import { whole } from "@/ui/numbers";
import { Untrusted } from "@/ui/untrusted";
import { useExplanation } from "./data";
import { type Lens, see } from "./lens";
import { isCalibrated, type Row, readingOf, tokenText } from "./rows";

const REST_MS = 200;

type Props = {
  rows: readonly Row[];
  index: number;
  lens: Lens;
  decoder: string | null;
  flags: readonly Schemas["Flag"][];
};

export function Preview({ rows, index, lens, decoder, flags }: Props) {
  const row = rows[index];
  const reading = row === undefined ? null : readingOf(row, decoder);
  // Each text that is shown is entered in the access log: only where the pointer rests.
  const rested = useRested(reading?.explanation_id ?? null);
  const found = useExplanation(rested);
  if (row === undefined) {
    return <p className="preview quiet">Point at a token, or press J.</p>;
  }
  const explanation = rested === reading?.explanation_id ? found.data : undefined;
  return (
    <div className="preview">
      <p className="row">
        <strong className="number">Position {whole(row.position)}</strong>
        {row.token_text !== null && <Untrusted className="mono token" text={tokenText(row)} limit={40} />}
        <Untrusted text={see(lens, reading).words} limit={160} />
        {reading !== null && (
          <>
            <HypothesisBadge />
            <VerifiedBadge verified={reading.verified} />
            {reading.concepts.length > 0 && (
              <CalibratedBadge calibrated={reading.concepts.every((one) => isCalibrated(flags, one))} />
            )}
          </>
        )}
      </p>
      <p className="preview-text">
        {reading === null ? (
          <span className="quiet">Sampled, and not read.</span>
        ) : explanation === undefined ? (
          <span className="quiet">…</span>
        ) : explanation.text === null ? (
          <span className="quiet">Text withheld.</span>
        ) : (
          <Untrusted text={explanation.text} limit={160} />
        )}
      </p>
    </div>
  );
}

function useRested<T>(value: T): T | null {
  const [rested, setRested] = useState<T | null>(null);
  useEffect(() => {
    const timer = setTimeout(() => setRested(value), REST_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return rested;
}
