/** What waits before it removes anything: somebody else confirms it at once, or whoever may hold objects. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { api, type Schemas, take } from "@/api/client";
import { useScope } from "@/app/session";
import { Badge } from "@/ui/badge";
import { whole } from "@/ui/numbers";
import { Failed } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { Kept } from "./kept";
import { ActDialog, By } from "./parts";

type Version = Schemas["RetentionVersion"];
export type Decision = Schemas["NewDecision"]["decision"];
export type Act = Parameters<typeof ActDialog>[0]["act"];

/** The words of what waits: a period, or an erasure. */
export type Kind = {
  /** "period" */
  name: string;
  /** The scope of who may confirm it; who may hold can object too. */
  scope: string;
  /** What its confirmation leads to, and its objection. */
  leads: Record<Decision, string>;
};

const PERIOD: Kind = {
  name: "period",
  scope: "retention:write",
  leads: {
    confirmed:
      "With this the period is in force, and rows older than it are removed. Whoever set it cannot confirm.",
    objected: "With this the period is never in force. It cannot be taken back.",
  },
};

/** Periods that wait. */
export function Waiting() {
  const queries = useQueryClient();
  const newest = useQuery({
    queryKey: ["retention-versions", "newest"],
    queryFn: ({ signal }) =>
      take(api.GET("/v1/retention/versions", { params: { query: { limit: 50 } }, signal })),
  });
  if (newest.error !== null) {
    return <Failed error={newest.error} retry={() => void newest.refetch()} />;
  }
  return newest.data?.items.filter(isWaiting).map((one) => (
    <Waits
      key={one.id}
      kind={PERIOD}
      decide={(decision) => async (reason, headers) => {
        const params = { path: { version_id: one.id } };
        const body = { decision, reason };
        await take(api.POST("/v1/retention/versions/{version_id}/decision", { params, headers, body }));
        await queries.invalidateQueries({ queryKey: ["retention"] });
        await queries.invalidateQueries({ queryKey: ["retention-versions"] });
      }}
    >
      <p>
        <Badge tone="warning">waits</Badge>{" "}
        {one.period_days === null ? "For good" : `${whole(one.period_days)} days`} for <Kept of={one} />,
        set by <By of={one} />: <Untrusted text={one.reason} limit={300} />
      </p>
      <p className="quiet">
        More would be removed than before. Nothing is, before{" "}
        {one.objectable_until !== null && <Time at={one.objectable_until} />}: until then somebody may
        object, and when somebody else confirms it, it is in force{" "}
        {Date.parse(one.in_force_from) > Date.now() ? (
          <>
            from <Time at={one.in_force_from} />
          </>
        ) : (
          "at once"
        )}
        .
      </p>
    </Waits>
  ));
}

export function isWaiting(one: Pick<Version, "decision" | "objectable_until">): boolean {
  return (
    one.decision === null && one.objectable_until !== null && Date.parse(one.objectable_until) > Date.now()
  );
}

type WaitsProps = { kind: Kind; decide: (decision: Decision) => Act; children: ReactNode };

/** One thing that waits, and what the caller may say of it. */
export function Waits({ kind, decide, children }: WaitsProps) {
  const mayConfirm = useScope(kind.scope);
  const mayHold = useScope("holds:write");
  const [asked, setAsked] = useState<Decision | null>(null);
  const article = /^[aeiou]/.test(kind.name) ? "an" : "a";
  return (
    <article
      className="panel"
      aria-label={`${kind.name[0]?.toUpperCase()}${kind.name.slice(1)} that waits`}
    >
      {children}
      <div className="row">
        {mayConfirm && (
          <button type="button" onClick={() => setAsked("confirmed")}>
            Confirm the {kind.name}
          </button>
        )}
        {(mayConfirm || mayHold) && (
          <button type="button" onClick={() => setAsked("objected")}>
            Object to the {kind.name}
          </button>
        )}
      </div>
      {asked !== null && (
        <ActDialog
          title={`${asked === "confirmed" ? "Confirm" : "Object to"} ${article} ${kind.name}`}
          why="Why"
          does={asked === "confirmed" ? "Confirm it" : "Object to it"}
          act={decide(asked)}
          onClose={() => setAsked(null)}
        >
          {kind.leads[asked]}
        </ActDialog>
      )}
    </article>
  );
}
