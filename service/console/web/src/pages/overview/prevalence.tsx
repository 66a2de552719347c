/** How common each concept is in the last day's requests. */
import { useQuery } from "@tanstack/react-query";
import { api, type Schemas, take } from "@/api/client";
import { useScope } from "@/app/session";
import { CalibratedBadge, HypothesisBadge } from "@/ui/badge";
import { NeedsScope } from "@/ui/scoped";
import { Estimate } from "@/ui/share";
import { Empty, Failed, Loading } from "@/ui/states";
import { Untrusted } from "@/ui/untrusted";
import { lastDay } from "./range";

const SHOWN = 10;
const STALE_MS = 300_000;

/** It takes the store the longest of all: not before what the page shows first is there. */
export function Prevalence({ isKnown }: { isKnown: boolean }) {
  const hasFlags = useScope("flags:read");
  const found = useQuery({
    queryKey: ["overview", "prevalence"],
    queryFn: ({ signal }) =>
      take(api.GET("/v1/concepts/prevalence", { params: { query: lastDay(Date.now()) }, signal })),
    enabled: hasFlags && isKnown,
    staleTime: STALE_MS,
    refetchInterval: STALE_MS,
  });
  return (
    <section className="panel" aria-labelledby="prevalence">
      <h2 id="prevalence">
        Prevalence by concept, last 24 hours <HypothesisBadge />
      </h2>
      {!hasFlags && <NeedsScope what="Prevalence" scope="flags:read" />}
      {hasFlags && found.isPending && <Loading what="prevalence" />}
      {found.error && <Failed error={found.error} retry={() => void found.refetch()} />}
      {found.data && <Reports reports={found.data.items} />}
    </section>
  );
}

function Reports({ reports }: { reports: Schemas["PrevalenceReport"][] }) {
  if (reports.length === 0) {
    return <Empty>No concept was flagged and no canary ran, so there is none to estimate.</Empty>;
  }
  return (
    <>
      {reports.length > SHOWN && (
        <p className="quiet">
          {SHOWN} of {reports.length} concepts; the others stand on the page Calibration.
        </p>
      )}
      <ul>
        {reports.slice(0, SHOWN).map((report) => (
          <li key={`${report.model} ${report.concept}`}>
            <strong>
              <Untrusted text={report.concept} limit={80} />
            </strong>{" "}
            <CalibratedBadge calibrated={report.calibrated} />{" "}
            <span className="quiet">
              <Untrusted text={report.model} limit={80} />
            </span>
            {report.estimates.length === 0 && <div>No decoder read anything: not known.</div>}
            {report.estimates.map((one) => (
              <div key={`${one.layer} ${one.decoder.id}`}>
                {one.estimate === null || one.estimate === undefined ? (
                  <>No request was judged at layer {one.layer}: not known.</>
                ) : (
                  <>
                    <Estimate
                      estimate={one.estimate}
                      lower={one.lower}
                      upper={one.upper}
                      n={one.requests}
                      confidence={report.confidence}
                    />{" "}
                    <span className="quiet">
                      requests, {one.requests_verified} of them with a verified reading, layer {one.layer}
                    </span>
                  </>
                )}
              </div>
            ))}
          </li>
        ))}
      </ul>
    </>
  );
}
