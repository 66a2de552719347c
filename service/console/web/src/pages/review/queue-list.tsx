/** The undecided incidents, as links: J and K move the focus among them, Enter follows it. */
import { memo, useRef } from "react";
import { Link } from "wouter";
import { useShortcuts } from "@/app/keys";
import { Empty } from "@/ui/states";
import { ago } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { SeverityBadge, StatusBadge } from "./badges";
import { type Incident, isSame, nameOf, type Who } from "./queue";

type Props = {
  queue: readonly Incident[];
  me: Who;
  /** The incident that is open, null for none. */
  open: string | null;
  addressOf: (id: string) => string;
  /** Open the incident beside the open one: 1 for the next, -1 for the one before. */
  onStep: (by: 1 | -1) => void;
};

export function QueueList({ queue, me, open, addressOf, onStep }: Props) {
  const list = useRef<HTMLOListElement>(null);

  function step(by: 1 | -1) {
    const links = [...(list.current?.querySelectorAll("a") ?? [])];
    const focused = links.indexOf(document.activeElement as HTMLAnchorElement);
    if (focused < 0 && open !== null) onStep(by);
    else links[Math.min(Math.max(focused + by, 0), links.length - 1)]?.focus();
  }

  useShortcuts({ j: () => step(1), k: () => step(-1) });

  if (queue.length === 0) return <Empty>No incident waits here.</Empty>;
  return (
    <ol ref={list} className="review-queue">
      {queue.map((incident) => (
        <Row
          key={incident.id}
          incident={incident}
          me={me}
          age={ago(incident.opened_at)}
          href={addressOf(incident.id)}
          isOpen={incident.id === open}
        />
      ))}
    </ol>
  );
}

type RowProps = { incident: Incident; me: Who; age: string; href: string; isOpen: boolean };

const Row = memo(function Row({ incident, me, age, href, isOpen }: RowProps) {
  return (
    <li>
      <Link href={href} className="review-row" aria-current={isOpen ? "true" : undefined}>
        <span className="row">
          <SeverityBadge severity={incident.severity} />
          <StatusBadge status={incident.status} />
          <span className="quiet">{age} old</span>
        </span>
        <span>
          {incident.flags.length === 0 ? "anomaly" : incident.flags.map((flag) => flag.concept).join(", ")}
        </span>
        <span className="quiet">
          <Untrusted text={incident.request_id} limit={60} />
        </span>
        <span className="quiet">{standing(incident, me)}</span>
      </Link>
    </li>
  );
});

function standing(incident: Incident, me: Who): string {
  const has = incident.assignee;
  const whose = has === null ? "nobody's" : isSame(has, me) ? "yours" : `${nameOf(has)}'s`;
  if (incident.proposal === null) return `${incident.state}, ${whose}`;
  const waits = isSame(incident.proposal, me)
    ? "waits for a second reviewer"
    : "waits for your second verdict";
  return `${incident.state}, ${whose}, ${waits}`;
}
