/** Legal holds: placing one, and the two people that lift it. */
import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, type Schemas, take } from "@/api/client";
import { useScope } from "@/app/session";
import { Badge } from "@/ui/badge";
import { DialogBox } from "@/ui/dialog";
import { Field } from "@/ui/field";
import { Empty, Failed, Loading } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { ActDialog, By, More, PurposeFields, Refusal, useStated } from "./parts";

type Hold = Schemas["LegalHold"];

const STATES = {
  in_force: ["in force", "good"],
  lift_asked: ["in force, lift asked for", "warning"],
  lifted: ["lifted", "plain"],
} as const;

export default function Holds() {
  const mayWrite = useScope("holds:write");
  const [placing, setPlacing] = useState(false);
  const [lifting, setLifting] = useState<Hold | null>(null);
  const [withLifted, setWithLifted] = useState(false);
  const found = useInfiniteQuery({
    queryKey: ["holds", withLifted],
    initialPageParam: null as string | null,
    queryFn: ({ pageParam, signal }) =>
      take(
        api.GET("/v1/legal-holds", {
          params: {
            query: {
              limit: 50,
              with_lifted: withLifted,
              ...(pageParam === null ? {} : { cursor: pageParam }),
            },
          },
          signal,
        }),
      ),
    getNextPageParam: (last) => last.next_cursor,
  });
  const items = found.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <section className="panel" aria-labelledby="holds">
      <h2 id="holds">Legal holds</h2>
      <p className="quiet">
        What a hold covers is removed by no retention and no erasure. It ends when one person asks to lift
        it and another one confirms; the database refuses both steps to the same key or person.
      </p>
      <div className="row">
        {mayWrite && (
          <button type="button" onClick={() => setPlacing(true)}>
            Place a hold
          </button>
        )}
        <label>
          <input
            type="checkbox"
            checked={withLifted}
            onChange={(event) => setWithLifted(event.target.checked)}
          />
          show lifted ones too
        </label>
      </div>
      {found.isPending && <Loading what="holds" />}
      {found.error !== null && <Failed error={found.error} retry={() => void found.refetch()} />}
      {found.isSuccess && items.length === 0 && <Empty>No hold is in force.</Empty>}
      {items.map((one) => (
        <article key={one.id} className="panel" aria-label={`Hold ${one.reference ?? one.id}`}>
          <Shown of={one} />
          {mayWrite && one.state !== "lifted" && (
            <button type="button" onClick={() => setLifting(one)}>
              {one.state === "in_force" ? "Ask to lift" : "Confirm the lift"}
            </button>
          )}
        </article>
      ))}
      {found.hasNextPage && <More of={found} what="holds" />}
      {placing && <PlaceDialog onClose={() => setPlacing(false)} />}
      {lifting !== null && <LiftDialog of={lifting} onClose={() => setLifting(null)} />}
    </section>
  );
}

function Shown({ of }: { of: Hold }) {
  const [state, tone] = STATES[of.state];
  const scope = Object.entries(of.scope).filter(([, value]) => value !== null);
  return (
    <>
      <p>
        <Badge tone={tone}>{state}</Badge>{" "}
        {of.reference !== null && <Untrusted text={of.reference} limit={120} />}{" "}
        <Untrusted text={of.reason} limit={400} />
      </p>
      <dl className="pairs">
        <div>
          <dt>Placed</dt>
          <dd>
            <Time at={of.placed_at} /> by <By of={of} />
          </dd>
        </div>
        {scope.map(([name, value]) => (
          <div key={name}>
            <dt>{name.replaceAll("_", " ")}</dt>
            <dd>
              <Untrusted text={String(value)} limit={200} />
            </dd>
          </div>
        ))}
        {of.lifts.map((lift) => (
          <div key={lift.step}>
            <dt>Lift {lift.step}</dt>
            <dd>
              <Time at={lift.at} /> by <By of={lift} />: <Untrusted text={lift.reason} limit={400} />
            </dd>
          </div>
        ))}
      </dl>
    </>
  );
}

const FIELDS = {
  model: "Model",
  concept: "Concept",
  request: "Request's id",
  capture_id: "Capture's id",
  trace_id: "Trace's id",
  subject: "Subject key",
} as const;
type Scope = Record<keyof typeof FIELDS | "captured_from" | "captured_to", string>;
const NOTHING: Scope = {
  model: "",
  concept: "",
  request: "",
  capture_id: "",
  trace_id: "",
  subject: "",
  captured_from: "",
  captured_to: "",
};

function PlaceDialog({ onClose }: { onClose: () => void }) {
  const queries = useQueryClient();
  const purpose = useStated();
  const [scope, setScope] = useState<Scope>(NOTHING);
  const [reason, setReason] = useState("");
  const [reference, setReference] = useState("");
  const place = useMutation({
    mutationFn: () => {
      const given = Object.entries(scope)
        .filter(([, value]) => value.trim() !== "")
        .map(([name, value]) => [name, name.startsWith("captured_") ? `${value}:00Z` : value.trim()]);
      return take(
        api.POST("/v1/legal-holds", {
          headers: purpose.headers,
          body: {
            scope: Object.fromEntries(given) as Schemas["AskedScope"],
            reason,
            reference: reference.trim() === "" ? null : reference.trim(),
          },
        }),
      );
    },
    onSuccess: async () => {
      await queries.invalidateQueries({ queryKey: ["holds"] });
      onClose();
    },
  });
  return (
    <DialogBox title="Place a hold" isOpen onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          place.mutate();
        }}
      >
        <p>It covers whatever fits all that is given; give at least one.</p>
        {(Object.keys(FIELDS) as (keyof typeof FIELDS)[]).map((name) => (
          <Field key={name} label={FIELDS[name]}>
            <input
              value={scope[name]}
              onChange={(event) => setScope({ ...scope, [name]: event.target.value })}
            />
          </Field>
        ))}
        {(["captured_from", "captured_to"] as const).map((name) => (
          <Field
            key={name}
            label={name === "captured_from" ? "Captured from, UTC" : "Captured before, UTC"}
          >
            <input
              type="datetime-local"
              value={scope[name]}
              onChange={(event) => setScope({ ...scope, [name]: event.target.value })}
            />
          </Field>
        ))}
        <Field label="Why nothing of it may go" hint="It cannot be changed later: no personal data.">
          <input
            value={reason}
            maxLength={2000}
            required
            onChange={(event) => setReason(event.target.value)}
          />
        </Field>
        <Field label="Reference, optional" hint="A case's number, to find it by.">
          <input value={reference} maxLength={512} onChange={(event) => setReference(event.target.value)} />
        </Field>
        <PurposeFields of={purpose} />
        <Refusal error={place.error} />
        <button type="submit" className="primary" disabled={place.isPending || purpose.fault !== null}>
          Place it
        </button>
      </form>
    </DialogBox>
  );
}

function LiftDialog({ of, onClose }: { of: Hold; onClose: () => void }) {
  const queries = useQueryClient();
  const isFirst = of.state === "in_force";
  return (
    <ActDialog
      title={isFirst ? "Ask to lift a hold" : "Confirm the lift of a hold"}
      why="Why it may end"
      does={isFirst ? "Ask to lift it" : "Confirm the lift"}
      onClose={onClose}
      act={async (reason, headers) => {
        const params = { path: { hold_id: of.id } };
        await take(api.POST("/v1/legal-holds/{hold_id}/lift", { params, headers, body: { reason } }));
        await queries.invalidateQueries({ queryKey: ["holds"] });
      }}
    >
      {isFirst
        ? "The hold stays in force until somebody else confirms."
        : "With this the hold ends, and what it covers may be removed. Whoever asked cannot confirm."}
    </ActDialog>
  );
}
