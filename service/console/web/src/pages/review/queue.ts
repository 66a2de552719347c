/** What the queue does next, whose an incident is, and what happened to one since it was read. Pure. */
import type { Schemas } from "@/api/client";

export type Incident = Schemas["Incident"];
export type Report = Schemas["IncidentReport"];
export type Event = Schemas["IncidentEvent"];
export type Verdict = "confirmed" | "dismissed";

/** What tells a reviewer from all others: a key, in whichever session, or a person. */
export type Who = { key_id: string | null; issuer: string | null; person: string | null };

export const SHOWN = { all: "all", mine: "mine", free: "nobody's" } as const;
export type Shown = keyof typeof SHOWN;

/** Return what the address asks to be shown. */
export function shownOf(search: string): Shown {
  const asked = new URLSearchParams(search).get("show") ?? "all";
  return Object.hasOwn(SHOWN, asked) ? (asked as Shown) : "all";
}

export function isSame(one: Who | null, other: Who | null): boolean {
  if (one === null || other === null) return false;
  if (one.key_id !== null || other.key_id !== null) return one.key_id === other.key_id;
  return one.person !== null && one.person === other.person && one.issuer === other.issuer;
}

/** Return a name to show: the key's, or how the issuer calls the person. */
export function nameOf(who: { key_name: string | null; person: string | null } | null): string {
  return who === null ? "the system" : (who.key_name ?? who.person ?? "the system");
}

/** Tell whether an incident waits for the reviewer: it is undecided, and he did not give the first verdict. */
export function isWaiting(incident: Incident, me: Who): boolean {
  return isUndecided(incident.state) && !isSame(incident.proposal, me);
}

export function isUndecided(state: Incident["state"]): boolean {
  return state === "open" || state === "acknowledged";
}

/** Return what to open after `done`: the next below it that waits, or else the first from the top; null when
 * none does. The incident itself may have left the list by now: `place` is where it stood. */
export function nextAfter(queue: readonly Incident[], done: string, place: number, me: Who): string | null {
  const found = queue.findIndex(({ id }) => id === done);
  const from = found >= 0 ? found + 1 : Math.max(place, 0);
  const around = [...queue.slice(from), ...queue.slice(0, from)];
  return around.find((incident) => incident.id !== done && isWaiting(incident, me))?.id ?? null;
}

/** Return the events after the version that was read, oldest first. */
export function since(events: readonly Event[], version: number): Event[] {
  return events.filter((event) => event.version > version);
}

/** Return one event as a sentence without its author. */
export function told(event: Event): string {
  const reason = event.reason_code === null ? "" : ` (${words(event.reason_code)})`;
  switch (event.kind) {
    case "opened":
      return `opened, ${event.severity}`;
    case "evidence":
      return `further finding: ${findings(event)}`;
    case "reopened":
      return `opened again by a finding: ${findings(event)}`;
    case "assigned":
      if (event.assignee === null) return "let it go";
      return isSame(event, event.assignee) ? "took it" : `assigned it to ${nameOf(event.assignee)}`;
    case "proposed":
      return `gave the first of two verdicts: ${event.proposed_state}${reason}`;
    default:
      return `${event.from_state} → ${event.to_state}${reason}`;
  }
}

function findings(event: Event): string {
  const names = event.findings.map((found) => String(found.concept ?? found.kind ?? "unnamed"));
  return names.join(", ") || "none";
}

export function words(code: string): string {
  return code.replaceAll("_", " ");
}

/** Return the concepts that a confirmation ticks at first: what a first reviewer said, or the only one. */
export function tickedAtFirst(incident: Incident): string[] {
  const concepts = conceptsOf(incident);
  const { proposal } = incident;
  if (proposal?.to === "confirmed") return concepts.filter((concept) => proposal.labels[concept] === true);
  return concepts.length === 1 ? concepts : [];
}

export function conceptsOf(incident: Incident): string[] {
  return incident.flags.map((flag) => flag.concept);
}
