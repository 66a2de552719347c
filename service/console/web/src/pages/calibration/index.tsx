/** How far verdicts can be trusted: each detector's rates, and each decoder's card with its nulls. */
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useScope } from "@/app/session";
import { Page } from "@/ui/page";
import { NeedsScope } from "@/ui/scoped";
import { Empty, Failed, Loading } from "@/ui/states";
import { DAYS_AT_FIRST, DECODERS, detectorsOf } from "./ahead";
import { DecoderCard } from "./decoder";
import { Detectors } from "./detectors";

const PERIODS = [7, 30, 90, 365] as const;

export default function CalibrationPage() {
  const hasFlags = useScope("flags:read");
  const hasReadings = useScope("explanations:read");
  const [days, setDays] = useState<number>(DAYS_AT_FIRST);
  const detectors = useQuery({ ...detectorsOf(days), enabled: hasFlags });
  const decoders = useQuery({ ...DECODERS, enabled: hasReadings });
  return (
    <Page title="Calibration">
      <section className="panel" aria-labelledby="detectors">
        <h2 id="detectors">Concepts</h2>
        <label>
          Flags and canaries of the last{" "}
          <select value={days} onChange={(event) => setDays(Number(event.target.value))}>
            {PERIODS.map((period) => (
              <option key={period} value={period}>
                {period} days
              </option>
            ))}
          </select>
        </label>
        {!hasFlags && <NeedsScope what="Detectors" scope="flags:read" />}
        {hasFlags && detectors.isPending && <Loading what="detectors" />}
        {detectors.error && <Failed error={detectors.error} retry={() => void detectors.refetch()} />}
        {detectors.data && <Detectors found={detectors.data} />}
      </section>
      {!hasReadings && <NeedsScope what="Decoders" scope="explanations:read" />}
      {hasReadings && decoders.isPending && <Loading what="decoders" />}
      {decoders.error && <Failed error={decoders.error} retry={() => void decoders.refetch()} />}
      {decoders.data?.items.length === 0 && <Empty>No decoder has read anything yet.</Empty>}
      {decoders.data?.items.map((decoder) => (
        <DecoderCard key={decoder.id} decoder={decoder} />
      ))}
    </Page>
  );
}
