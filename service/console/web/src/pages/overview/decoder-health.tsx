/** Whether decoders work: whether workers report, and how many of the newest readings are verified. */
import { useQuery } from "@tanstack/react-query";
import { api, type Schemas, take } from "@/api/client";
import { useScope } from "@/app/session";
import type { LiveState } from "@/ui/live-state";
import { NeedsScope } from "@/ui/scoped";
import { Share } from "@/ui/share";
import { Absent, Empty, Failed, Loading } from "@/ui/states";
import { ago } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";

const REFRESH_MS = 60_000;

export function DecoderHealth({ live }: { live: LiveState }) {
  const hasCoverage = useScope("coverage:read");
  const inForce = useQuery({
    queryKey: ["overview", "configuration"],
    queryFn: ({ signal }) => take(api.GET("/v1/configuration", { signal })),
    enabled: hasCoverage,
    refetchInterval: REFRESH_MS,
  });
  return (
    <section className="panel" aria-labelledby="decoders">
      <h2 id="decoders">Decoder health</h2>
      {!hasCoverage && <NeedsScope what="What workers report" scope="coverage:read" />}
      {hasCoverage && inForce.isPending && <Loading what="what workers report" />}
      {inForce.error && <Failed error={inForce.error} retry={() => void inForce.refetch()} />}
      {inForce.data?.models.length === 0 && <Empty>No process has ever reported.</Empty>}
      {inForce.data?.models.map((model) => (
        <div key={model.model}>
          <h3>
            <Untrusted text={model.model} limit={120} />
          </h3>
          <Worker model={model} />
        </div>
      ))}
      {live.readings !== null && <Verified readings={live.readings} />}
      <p className="quiet">
        Whether a worker trusts its decoder stands in its own metric{" "}
        <code>subtext_decoder_health_ratio</code>: this service does not know it.
      </p>
    </section>
  );
}

function Worker({ model }: { model: Schemas["ModelConfiguration"] }) {
  const worker = model.kinds.find((one) => one.kind === "worker");
  if (!worker?.known) {
    return <Absent what="A worker" why={worker?.note ?? "None has reported."} />;
  }
  const sources = worker.versions.flatMap((version) => version.sources);
  const seen = worker.versions
    .map((version) => version.seen_until)
    .sort()
    .at(-1);
  return (
    <p>
      {sources.length} {sources.length === 1 ? "worker reports" : "workers report"}
      {seen && `, the last one ${ago(seen)} ago`}
      {worker.versions.length > 1 && `; ${worker.versions.length} configurations are in force`}
    </p>
  );
}

function Verified({ readings }: { readings: Schemas["LiveReadings"] }) {
  const verified = readings.newest.filter((one) => one.fidelity.verified).length;
  return (
    <p>
      Verified: <Share count={verified} of={readings.newest.length} what="newest readings" />
    </p>
  );
}
