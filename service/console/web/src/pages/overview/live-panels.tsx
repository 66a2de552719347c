/** What the event stream tells: counts, readings by their places, incidents and tests. */
import { Link } from "wouter";
import { useScope } from "@/app/session";
import { Badge, HypothesisBadge, type Tone, VerifiedBadge } from "@/ui/badge";
import { FlowTable } from "@/ui/flow-table";
import type { LiveState, LiveStatus } from "@/ui/live-state";
import { decimal, whole } from "@/ui/numbers";
import { requestAddress } from "@/ui/request-address";
import { NeedsScope } from "@/ui/scoped";
import { Scroll } from "@/ui/scroll";
import { Share } from "@/ui/share";
import { Empty, Loading } from "@/ui/states";
import { StepBars } from "@/ui/step-bars";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";

type Props = { live: LiveState };
const SHOWN = 10;

const SAID: Readonly<Record<LiveStatus, readonly [Tone, string]>> = {
  connecting: ["plain", "connecting"],
  live: ["good", "live"],
  away: ["bad", "not live: the store cannot be asked"],
  ended: ["warning", "not live: the stream ended"],
  refused: ["warning", "not live: the service gives no stream just now"],
};

export function LiveStatusLine({ live }: Props) {
  const [tone, words] = SAID[live.status];
  return (
    <p role="status">
      <Badge tone={tone}>{words}</Badge>
      {live.status === "away" && live.lookedAt !== null && (
        <>
          {" "}
          figures of <Time at={live.lookedAt} />
        </>
      )}
    </p>
  );
}

/** Counts of the last minutes. */
export function LiveNow({ live }: Props) {
  const models = live.coverage?.models;
  return (
    <section className="panel" aria-labelledby="now">
      <h2 id="now">Last 15 minutes</h2>
      {models === undefined && <Loading what="the last minutes" />}
      {models?.length === 0 && (
        <Empty>
          Nothing was counted in the last 15 minutes: no traffic, or nobody who would have told of it.
        </Empty>
      )}
      {models?.map((model) => (
        <div key={model.model}>
          <h3>
            <Untrusted text={model.model} limit={120} />
          </h3>
          <StepBars
            label="Requests by minute"
            names={["sampled", "seen and not sampled"]}
            bars={model.minutes.map(({ start, sums }) => ({
              start,
              values: [
                sums.requests_sampled.numerator,
                Math.max(0, sums.requests_sampled.denominator - sums.requests_sampled.numerator),
              ],
            }))}
          />
          <FlowTable sums={model.totals} caption="What has no outcome yet may still get one." />
        </div>
      ))}
    </section>
  );
}

/** Requests that were found to be anomalies, of those tested. */
export function AnomalyRate({ live }: Props) {
  const hasFlags = useScope("flags:read");
  const tested = live.incidents?.tested;
  return (
    <section className="panel" aria-labelledby="anomalies">
      <h2 id="anomalies">Anomalous requests, last 24 hours</h2>
      {!hasFlags && <NeedsScope what="The anomaly rate" scope="flags:read" />}
      {hasFlags && tested === undefined && <Loading what="tests of requests" />}
      {tested?.length === 0 && (
        <Empty>
          No request was tested: the rate is not known. Workers test once a window of requests is full.
        </Empty>
      )}
      {tested?.map((model) => (
        <p key={model.model}>
          <Untrusted text={model.model} limit={120} />:{" "}
          <Share
            count={model.discovered.numerator}
            of={model.discovered.denominator}
            what="tested requests"
          />
          , in {whole(model.windows)} {model.windows === 1 ? "window" : "windows"}
        </p>
      ))}
      {tested !== undefined && tested.length > 0 && (
        <p className="quiet">
          Unlike the traffic of the reference, which does not say that they are harmful. Some of them are
          false, on average at most the share that the windows accept.
        </p>
      )}
    </section>
  );
}

export function LiveIncidents({ live }: Props) {
  const hasFlags = useScope("flags:read");
  const incidents = live.incidents;
  if (!hasFlags) return <NeedsScope what="Incidents" scope="flags:read" />;
  return (
    <section className="panel" aria-labelledby="incidents">
      <h2 id="incidents">
        Incidents that nobody has decided on <HypothesisBadge />
      </h2>
      {incidents === null && <Loading what="incidents" />}
      {incidents?.undecided.length === 0 && <Empty>There is none.</Empty>}
      {incidents?.undecided.map((one) => (
        <p key={`${one.model} ${one.state}`} className="number">
          <Untrusted text={one.model} limit={120} />: {whole(one.incidents)} {one.state}
        </p>
      ))}
      {incidents !== null && incidents.changed.length > 0 && (
        <Scroll label="Incidents">
          <table>
            <caption>The {whole(Math.min(SHOWN, incidents.changed.length))} that changed last.</caption>
            <thead>
              <tr>
                <th scope="col">Changed</th>
                <th scope="col">Request</th>
                <th scope="col">State</th>
              </tr>
            </thead>
            <tbody>
              {incidents.changed.slice(0, SHOWN).map((one) => (
                <tr key={one.id}>
                  <td>
                    <Time at={one.updated_at} />
                  </td>
                  <td>
                    <Link href={`/review/${one.id}`}>
                      <Untrusted text={one.request_id} limit={80} />
                    </Link>
                  </td>
                  <td>{one.state}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </section>
  );
}

export function LiveReadings({ live }: Props) {
  const hasReadings = useScope("explanations:read");
  const newest = live.readings?.newest;
  if (!hasReadings) return <NeedsScope what="Readings" scope="explanations:read" />;
  return (
    <section className="panel" aria-labelledby="readings">
      <h2 id="readings">
        Newest readings <HypothesisBadge />
      </h2>
      {newest === undefined && <Loading what="readings" />}
      {newest?.length === 0 && <Empty>Nothing that was captured in the last 24 hours has been read.</Empty>}
      {newest !== undefined && newest.length > 0 && (
        <Scroll label="Readings">
          <table>
            <caption>The newest {whole(newest.length)} captures of the last 24 hours.</caption>
            <thead>
              <tr>
                <th scope="col">Captured</th>
                <th scope="col">Verified</th>
                <th scope="col">Request</th>
                <th scope="col">Layer, position</th>
                <th scope="col">FVE</th>
              </tr>
            </thead>
            <tbody>
              {newest.map((one) => (
                <tr key={one.id}>
                  <td>
                    <Time at={one.captured_at} />
                  </td>
                  <td>
                    <VerifiedBadge verified={one.fidelity.verified} />
                  </td>
                  <td>
                    <Link
                      href={requestAddress({ ...one, capture_id: one.capture_id ?? null }, one.position)}
                    >
                      <Untrusted text={one.request_id} limit={80} />
                    </Link>
                  </td>
                  <td>
                    {one.layer}, {one.position}
                  </td>
                  <td className="number">
                    {decimal(one.fidelity.fve_beyond_token ?? one.fidelity.fve)}
                    {one.fidelity.fve_beyond_token == null ? "" : " beyond the token"}, verified above{" "}
                    {decimal(one.fidelity.verified_above)}, n {whole(one.fidelity.calibration_n)}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </section>
  );
}
