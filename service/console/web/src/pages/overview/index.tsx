/** What the audit sees now and saw in the last day: every figure with its denominator or interval. */
import { useQuery } from "@tanstack/react-query";
import { useScope } from "@/app/session";
import { FlowOfRange } from "@/ui/flow-table";
import { useLive } from "@/ui/live";
import { whole } from "@/ui/numbers";
import { Page } from "@/ui/page";
import { NeedsScope } from "@/ui/scoped";
import { Empty, Failed, Loading } from "@/ui/states";
import { Untrusted } from "@/ui/untrusted";
import { REFRESH_MS, STATEMENT } from "./ahead";
import { DecoderHealth } from "./decoder-health";
import { AnomalyRate, LiveIncidents, LiveNow, LiveReadings, LiveStatusLine } from "./live-panels";
import { Prevalence } from "./prevalence";
import { CanaryRecall } from "./recall";

export default function OverviewPage() {
  const hasCoverage = useScope("coverage:read");
  const live = useLive(hasCoverage);
  const statement = useQuery({ ...STATEMENT, enabled: hasCoverage, refetchInterval: REFRESH_MS });
  const models = statement.data?.models ?? [];

  return (
    <Page title="Overview" actions={hasCoverage ? <LiveStatusLine live={live} /> : null}>
      {hasCoverage ? (
        <>
          <LiveNow live={live} />
          <section className="panel" aria-labelledby="flow">
            <h2 id="flow">Last 24 hours</h2>
            {statement.isPending && <Loading what="the last day" />}
            {statement.error && <Failed error={statement.error} retry={() => void statement.refetch()} />}
            {statement.data && models.length === 0 && (
              <Empty>No model has been audited: nothing was counted and nothing was read.</Empty>
            )}
            {models.map((model) => (
              <div key={model.model}>
                <h3>
                  <Untrusted text={model.model} limit={120} />
                </h3>
                <FlowOfRange
                  of={model}
                  caption={`Of ${whole(model.minutes.total)} minutes: ${whole(model.minutes.with_traffic)} with traffic, ${whole(model.minutes.no_traffic)} without, and of ${whole(model.minutes.nobody_reported)} nobody reported.`}
                />
              </div>
            ))}
          </section>
        </>
      ) : (
        <NeedsScope what="Traffic, live figures and canary recall" scope="coverage:read" />
      )}
      <div className="grid">
        <Prevalence isKnown={statement.isSuccess} />
        <AnomalyRate live={live} />
        <CanaryRecall models={models} isKnown={statement.isSuccess} />
        <DecoderHealth live={live} />
      </div>
      <LiveIncidents live={live} />
      <LiveReadings live={live} />
    </Page>
  );
}
