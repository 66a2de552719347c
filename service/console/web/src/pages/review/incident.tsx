/** One incident: what was found, what it stands on, what people did, and what can be done. */
import { useEffect, useRef, useState } from "react";
import { Link } from "wouter";
import { ApiError } from "@/api/client";
import { useShortcuts } from "@/app/keys";
import { useScope } from "@/app/session";
import { HypothesisBadge } from "@/ui/badge";
import { requestAddress } from "@/ui/request-address";
import { Failed, Loading } from "@/ui/states";
import { ago, Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { cut } from "@/ui/visible";
import { SeverityBadge, StateBadge, StatusBadge } from "./badges";
import { type Decision, useActions, useIncident } from "./data";
import { Evidence } from "./evidence";
import { Findings, PrecisionStrip } from "./findings";
import { Clocks, Events, History, Labels, Webhooks } from "./history";
import {
  type Incident,
  isSame,
  isUndecided,
  nameOf,
  type Report,
  since,
  type Verdict,
  type Who,
  words,
} from "./queue";
import { tell } from "./told";
import { VerdictDialog } from "./verdict";

type Props = {
  id: string;
  me: Who;
  /** The version that the queue shows, undefined when it is not in there. */
  newest: number | undefined;
  /** Open the next one: this one is decided, or waits for another reviewer. */
  onDone: () => void;
};

export function IncidentPanel({ id, me, newest, onDone }: Props) {
  const incident = useIncident(id);
  const { refetch } = incident;
  const known = incident.data?.version;
  useEffect(() => {
    if (known !== undefined && newest !== undefined && newest > known) void refetch();
  }, [known, newest, refetch]);
  if (incident.data !== undefined) return <Opened incident={incident.data} me={me} onDone={onDone} />;
  if (incident.error !== null)
    return <Failed error={incident.error} retry={() => void incident.refetch()} />;
  return <Loading what="the incident" />;
}

type OpenedProps = { incident: Report; me: Who; onDone: () => void };

function Opened({ incident, me, onDone }: OpenedProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  const triage = useTriage(incident, onDone);
  useEffect(() => heading.current?.focus(), []);
  return (
    <article aria-labelledby="incident" className="review-incident">
      <h2 id="incident" ref={heading} tabIndex={-1}>
        <Untrusted text={incident.request_id} limit={120} />
      </h2>
      <p className="row">
        <SeverityBadge severity={incident.severity} />
        <StateBadge state={incident.state} />
        <StatusBadge status={incident.status} />
        <HypothesisBadge />
        <Link href={requestAddress(incident, incident.evidence[0]?.explanation.position)}>
          Open the request
        </Link>
      </p>
      <p>
        Opened <Time at={incident.opened_at} /> ({ago(incident.opened_at)} ago) on{" "}
        <Untrusted text={incident.model} limit={80} />, layer {incident.layer}, by{" "}
        <Untrusted text={incident.decoder.name} limit={80} />.{" "}
        {incident.assignee === null
          ? "Assigned to nobody."
          : isSame(incident.assignee, me)
            ? "Assigned to you."
            : `Assigned to ${nameOf(incident.assignee)}.`}
        {Object.keys(incident.labels).length > 0 && <Labels labels={incident.labels} />}
      </p>
      <SecondReviewer incident={incident} me={me} />
      <Actions incident={incident} me={me} triage={triage} />
      <PrecisionStrip incident={incident} />
      <Findings incident={incident} />
      <Evidence incident={incident} />
      <History incident={incident} />
      <Clocks incident={incident} />
      <Webhooks incident={incident} />
    </article>
  );
}

function SecondReviewer({ incident, me }: { incident: Report; me: Who }) {
  const { proposal } = incident;
  if (!incident.second_review || !isUndecided(incident.state)) return null;
  if (proposal === null) {
    return (
      <p className="state">A concept of it asks for two reviewers: both have to give the same verdict.</p>
    );
  }
  return (
    <div className="state">
      <p>
        <strong>
          {isSame(proposal, me) ? "You" : <Untrusted text={nameOf(proposal)} limit={80} />} gave the first
          verdict: {proposal.to}
        </strong>{" "}
        ({words(proposal.reason_code)})
        <Labels labels={proposal.labels} />, <Time at={proposal.at} />.{" "}
        {isSame(proposal, me)
          ? "Another reviewer has to give the same one."
          : "It is decided when you give the same one."}
      </p>
      {proposal.note !== null && (
        <blockquote>
          <Untrusted text={proposal.note} />
        </blockquote>
      )}
    </div>
  );
}

type Triage = ReturnType<typeof useTriage>;

/** The state of what is being done: which dialog is open, what was refused, and what happened meanwhile. */
function useTriage(incident: Report, onDone: () => void) {
  const actions = useActions(incident.id);
  const [asked, setAsked] = useState<Verdict | null>(null);
  const [refused, setRefused] = useState<{ error: Error; version: number } | null>(null);
  const [isBusy, setBusy] = useState(false);

  async function run(change: () => Promise<string>) {
    if (isBusy) return;
    setBusy(true);
    setRefused(null);
    try {
      tell(await change());
    } catch (error) {
      setRefused({ error: error as Error, version: incident.version });
    }
    await actions.refresh().catch(() => undefined);
    setBusy(false);
  }

  return {
    asked,
    ask: setAsked,
    refused,
    isBusy,
    refresh: actions.refresh,
    take: () =>
      run(async () => {
        const taken = await actions.assign(incident.version, "me");
        if (taken.state === "open") await actions.acknowledge(taken.version);
        return "It is yours, and acknowledged.";
      }),
    letGo: () =>
      run(async () => {
        await actions.assign(incident.version, "none");
        return "It is nobody's again.";
      }),
    reopen: () =>
      run(async () => {
        await actions.reopen(incident.version);
        return "It is open again.";
      }),
    async decide(decision: Decision) {
      const changed = await actions.decide(decision);
      setAsked(null);
      tell(outcome(changed));
      onDone();
    },
  };
}

function outcome(changed: Incident): string {
  const isDecided = !isUndecided(changed.state);
  const what = isDecided ? `is ${changed.state}` : "waits for a second reviewer, who has to say the same";
  return `${cut(changed.request_id, 80)} ${what}.`;
}

function Actions({ incident, me, triage }: { incident: Report; me: Who; triage: Triage }) {
  const mayTriage = useScope("incidents:triage");
  const isOpen = isUndecided(incident.state);
  const isMine = isSame(incident.assignee, me);
  const { asked, refused, isBusy } = triage;
  useShortcuts(
    {
      a: () => void triage.take(),
      u: () => void triage.letGo(),
      c: () => triage.ask("confirmed"),
      d: () => triage.ask("dismissed"),
    },
    mayTriage && isOpen,
  );
  useShortcuts({ o: () => void triage.reopen() }, mayTriage && !isOpen);
  if (!mayTriage) {
    return (
      <p className="quiet">
        You may read this and not decide it: your key or group lacks the scope <code>incidents:triage</code>
        .
      </p>
    );
  }
  return (
    <>
      <div className="row">
        {isOpen ? (
          <>
            <button type="button" disabled={isBusy} onClick={() => void triage.take()}>
              Assign to me <kbd>a</kbd>
            </button>
            {isMine && (
              <button type="button" disabled={isBusy} onClick={() => void triage.letGo()}>
                Let it go <kbd>u</kbd>
              </button>
            )}
            <button type="button" disabled={isBusy} onClick={() => triage.ask("confirmed")}>
              Confirm… <kbd>c</kbd>
            </button>
            <button type="button" disabled={isBusy} onClick={() => triage.ask("dismissed")}>
              Dismiss… <kbd>d</kbd>
            </button>
          </>
        ) : (
          <button type="button" disabled={isBusy} onClick={() => void triage.reopen()}>
            Open again <kbd>o</kbd>
          </button>
        )}
      </div>
      {refused !== null && <Refused incident={incident} {...refused} />}
      {asked !== null && (
        <VerdictDialog
          incident={incident}
          to={asked}
          onClose={() => triage.ask(null)}
          decide={triage.decide}
          refresh={triage.refresh}
        />
      )}
    </>
  );
}

function Refused({ incident, error, version }: { incident: Report; error: Error; version: number }) {
  const isConflict = error instanceof ApiError && error.status === 409;
  const happened = since(incident.events, version);
  return (
    <div role="alert" className="state fault">
      <p>
        {isConflict && happened.length > 0 ? "Not done: this happened since you read it." : error.message}
      </p>
      {isConflict && <Events events={happened} />}
    </div>
  );
}
