/** What happened to an incident, who was told of it, and by when a report might be due. */
import type { Schemas } from "@/api/client";
import { Badge, type Tone } from "@/ui/badge";
import { Absent, Empty, Failed, Loading } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { useClock } from "./data";
import { type Event, nameOf, type Report, told } from "./queue";

export function History({ incident }: { incident: Report }) {
  return (
    <section aria-labelledby="history">
      <h3 id="history">History</h3>
      <Events events={incident.events} />
    </section>
  );
}

export function Events({ events }: { events: readonly Event[] }) {
  return (
    <ol className="review-plain review-events">
      {events.map((event) => (
        <li key={event.version}>
          <span className="number">{event.version}.</span> <Untrusted text={nameOf(event)} limit={80} />{" "}
          {told(event)}{" "}
          <span className="quiet">
            <Time at={event.at} />
          </span>
          {Object.keys(event.labels).length > 0 && <Labels labels={event.labels} />}
          {event.note !== null && (
            <blockquote>
              <Untrusted text={event.note} />
            </blockquote>
          )}
        </li>
      ))}
    </ol>
  );
}

export function Labels({ labels }: { labels: Readonly<Record<string, boolean>> }) {
  const said = Object.entries(labels).map(
    ([concept, holds]) => `${concept} ${holds ? "holds" : "does not hold"}`,
  );
  return <span className="quiet"> {said.join(", ")}</span>;
}

const TONES: Readonly<Record<Schemas["WebhookState"]["state"], Tone>> = {
  pending: "warning",
  delivered: "good",
  failed: "bad",
};

export function Webhooks({ incident }: { incident: Report }) {
  const { webhooks } = incident;
  return (
    <section aria-labelledby="webhooks">
      <h3 id="webhooks">Who was told</h3>
      {webhooks.length === 0 && (
        <Empty>No webhook was told of it: none was configured when it happened.</Empty>
      )}
      <ul className="review-plain">
        {webhooks.map((one) => (
          <li key={`${one.version} ${one.destination}`} className="row">
            <Untrusted text={one.destination} limit={80} />
            <span>event {one.version}</span>
            <Badge tone={TONES[one.state]}>{one.state}</Badge>
            <span className="quiet number">{one.attempts} attempts</span>
            {one.last_error !== null && <Untrusted text={one.last_error} limit={200} />}
          </li>
        ))}
      </ul>
    </section>
  );
}

const CLOCKS = {
  widespread: "widespread, or critical infrastructure",
  death: "death",
  other: "other",
} as const;

export function Clocks({ incident }: { incident: Report }) {
  const clock = useClock(incident);
  const found = clock.data?.found ?? null;
  if (incident.state === "dismissed") return null;
  return (
    <section aria-labelledby="clocks">
      <h3 id="clocks">If it is a serious incident (AI Act, Article 73)</h3>
      {clock.isPending && <Loading what="the terms" />}
      {clock.error !== null && <Failed error={clock.error} retry={() => void clock.refetch()} />}
      {clock.data !== undefined && found === null && (
        <Absent what="The terms" why="More than 200 incidents were opened in the same second." />
      )}
      {found !== null && (
        <>
          <p className="quiet">{clock.data?.label}</p>
          <dl className="pairs">
            {found.due.map((due) => (
              <div key={due.clock}>
                <dt>
                  {CLOCKS[due.clock]}: {due.days} days
                </dt>
                <dd>
                  from the opening <Time at={due.from_opening} />
                  {due.from_confirmation !== null && (
                    <>
                      , from the confirmation <Time at={due.from_confirmation} />
                    </>
                  )}{" "}
                  {due.is_overdue && <Badge tone="bad">over</Badge>}
                </dd>
              </div>
            ))}
          </dl>
        </>
      )}
    </section>
  );
}
