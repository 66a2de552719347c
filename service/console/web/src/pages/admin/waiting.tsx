/** Periods that wait: somebody else confirms them at once, or whoever may hold objects. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, type Schemas, take } from "@/api/client";
import { useScope } from "@/app/session";
import { Badge } from "@/ui/badge";
import { DialogBox } from "@/ui/dialog";
import { Field } from "@/ui/field";
import { whole } from "@/ui/numbers";
import { Failed } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { Kept } from "./kept";
import { PurposeFields, Refusal, useStated } from "./parts";

type Version = Schemas["RetentionVersion"];
type Decision = "confirmed" | "objected";

export function Waiting() {
  const mayConfirm = useScope("retention:write");
  const mayHold = useScope("holds:write");
  const [asked, setAsked] = useState<{ of: Version; decision: Decision } | null>(null);
  const newest = useQuery({
    queryKey: ["retention-versions", "newest"],
    queryFn: ({ signal }) =>
      take(api.GET("/v1/retention/versions", { params: { query: { limit: 50 } }, signal })),
  });
  if (newest.error !== null) {
    return <Failed error={newest.error} retry={() => void newest.refetch()} />;
  }
  const waiting = newest.data?.items.filter(isWaiting) ?? [];
  return (
    <>
      {waiting.map((one) => (
        <article key={one.id} className="panel" aria-label="Period that waits">
          <p>
            <Badge tone="warning">waits</Badge>{" "}
            {one.period_days === null ? "For good" : `${whole(one.period_days)} days`} for <Kept of={one} />
            , set by <Untrusted text={one.person ?? one.key_name ?? "nobody named"} limit={120} />:{" "}
            <Untrusted text={one.reason} limit={300} />
          </p>
          <p className="quiet">
            More would be removed than before. It is in force from <Time at={one.in_force_from} /> unless
            somebody objects until then, and at once when somebody else confirms it.
          </p>
          <div className="row">
            {mayConfirm && (
              <button type="button" onClick={() => setAsked({ of: one, decision: "confirmed" })}>
                Confirm the period
              </button>
            )}
            {(mayConfirm || mayHold) && (
              <button type="button" onClick={() => setAsked({ of: one, decision: "objected" })}>
                Object to the period
              </button>
            )}
          </div>
        </article>
      ))}
      {asked !== null && <DecideDialog {...asked} onClose={() => setAsked(null)} />}
    </>
  );
}

function isWaiting(one: Version): boolean {
  return (
    one.decision === null && one.objectable_until !== null && Date.parse(one.objectable_until) > Date.now()
  );
}

function DecideDialog({ of, decision, onClose }: { of: Version; decision: Decision; onClose: () => void }) {
  const queries = useQueryClient();
  const purpose = useStated();
  const [reason, setReason] = useState("");
  const decide = useMutation({
    mutationFn: () =>
      take(
        api.POST("/v1/retention/versions/{version_id}/decision", {
          params: { path: { version_id: of.id } },
          headers: purpose.headers,
          body: { decision, reason },
        }),
      ),
    onSuccess: async () => {
      await queries.invalidateQueries({ queryKey: ["retention"] });
      await queries.invalidateQueries({ queryKey: ["retention-versions"] });
      onClose();
    },
  });
  const name = decision === "confirmed" ? "Confirm it" : "Object to it";
  return (
    <DialogBox
      title={decision === "confirmed" ? "Confirm a period" : "Object to a period"}
      isOpen
      onClose={onClose}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          decide.mutate();
        }}
      >
        <p>
          {decision === "confirmed"
            ? "With this the period is in force, and rows older than it are removed. Whoever set it cannot confirm."
            : "With this the period is never in force. It cannot be taken back."}
        </p>
        <Field label="Why" hint="It cannot be changed later: no personal data.">
          <input
            value={reason}
            maxLength={2000}
            required
            onChange={(event) => setReason(event.target.value)}
          />
        </Field>
        <PurposeFields of={purpose} />
        <Refusal error={decide.error} />
        <button type="submit" className="primary" disabled={decide.isPending || purpose.fault !== null}>
          {name}
        </button>
      </form>
    </DialogBox>
  );
}
