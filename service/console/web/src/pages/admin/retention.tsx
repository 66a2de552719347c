/** Retention: for how long rows are kept, certificates of what went, and what legal holds keep. */
import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, type Schemas, take } from "@/api/client";
import { useScope } from "@/app/session";
import { Badge } from "@/ui/badge";
import { DialogBox } from "@/ui/dialog";
import { Field } from "@/ui/field";
import { whole } from "@/ui/numbers";
import { NeedsScope } from "@/ui/scoped";
import { Empty, Failed, Loading } from "@/ui/states";
import { Time } from "@/ui/time";
import { Untrusted } from "@/ui/untrusted";
import { Erasures } from "./erasures";
import Holds from "./holds";
import { Kept, RECORDS } from "./kept";
import { By, More, PurposeFields, Refusal, Scroll, useStated } from "./parts";
import { Waiting } from "./waiting";

type Version = Schemas["RetentionVersion"];

const CLASSES = [
  ["ai_act", "at least 183 days", "no ceiling", "Articles 19(1) and 26(6), Regulation (EU) 2024/1689"],
  ["hipaa", "at least 2,192 days", "no ceiling", "45 CFR 164.316(b)(2)"],
  ["minimal", "no floor", "at most 30 days", "Article 5(1)(e), Regulation (EU) 2016/679"],
  ["custom", "as it is set", "as it is set", "the operator's own"],
] as const;

export default function Retention() {
  const may = useScope("coverage:read");
  const mayHold = useScope("holds:read");
  const mayErase = useScope("erasures:read");
  return (
    <>
      {may ? <Periods /> : <NeedsScope what="Retention" scope="coverage:read" />}
      {mayErase ? <Erasures /> : <NeedsScope what="Erasures that wait" scope="erasures:read" />}
      {mayHold ? <Holds /> : <NeedsScope what="Legal holds" scope="holds:read" />}
      {may && <Certificates />}
    </>
  );
}

function Periods() {
  const mayWrite = useScope("retention:write");
  const [setting, setSetting] = useState(false);
  const inForce = useQuery({
    queryKey: ["retention"],
    queryFn: ({ signal }) => take(api.GET("/v1/retention", { signal })),
  });
  return (
    <section className="panel" aria-labelledby="periods">
      <h2 id="periods">Periods</h2>
      <p className="quiet">
        Rows older than their period are removed by retention runs, and do not come back. A legal hold comes
        before every period. A version never changes: later ones follow it.
      </p>
      {inForce.isPending && <Loading what="periods" />}
      {inForce.error !== null && <Failed error={inForce.error} retry={() => void inForce.refetch()} />}
      {inForce.data?.items.length === 0 && <Empty>No period is set: nothing is removed.</Empty>}
      {inForce.data !== undefined && inForce.data.items.length > 0 && (
        <Table label="Periods in force" items={inForce.data.items} />
      )}
      <Waiting />
      {mayWrite && (
        <p>
          <button type="button" onClick={() => setSetting(true)}>
            Set a period
          </button>
        </p>
      )}
      {setting && <SetDialog onClose={() => setSetting(false)} />}
      <details>
        <summary>Classes, with floors and ceilings</summary>
        <Scroll label="Classes">
          <table>
            <thead>
              <tr>
                <th scope="col">Class</th>
                <th scope="col">Floor</th>
                <th scope="col">Ceiling</th>
                <th scope="col">By</th>
              </tr>
            </thead>
            <tbody>
              {CLASSES.map(([name, floor, ceiling, by]) => (
                <tr key={name}>
                  <th scope="row">{name}</th>
                  <td>{floor}</td>
                  <td>{ceiling}</td>
                  <td>{by}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      </details>
      <Versions />
    </section>
  );
}

function Versions() {
  const [open, setOpen] = useState(false);
  const found = useInfiniteQuery({
    queryKey: ["retention-versions"],
    enabled: open,
    initialPageParam: null as string | null,
    queryFn: ({ pageParam, signal }) =>
      take(
        api.GET("/v1/retention/versions", {
          params: { query: { limit: 50, ...(pageParam === null ? {} : { cursor: pageParam }) } },
          signal,
        }),
      ),
    getNextPageParam: (last) => last.next_cursor,
  });
  const items = found.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Every version that was set</summary>
      {open && found.isPending && <Loading what="versions" />}
      {found.error !== null && <Failed error={found.error} retry={() => void found.refetch()} />}
      {found.isSuccess && items.length === 0 && <Empty>None was ever set.</Empty>}
      {items.length > 0 && <Table label="Versions" items={items} />}
      {found.hasNextPage && <More of={found} what="versions" />}
    </details>
  );
}

function Table({ items, label }: { items: readonly Version[]; label: string }) {
  return (
    <Scroll label={label}>
      <table>
        <thead>
          <tr>
            <th scope="col">Of</th>
            <th scope="col">Period</th>
            <th scope="col">Class</th>
            <th scope="col">Floor and ceiling</th>
            <th scope="col">In force from</th>
            <th scope="col">Set by</th>
            <th scope="col">Why</th>
          </tr>
        </thead>
        <tbody>
          {items.map((one) => (
            <tr key={one.id}>
              <th scope="row">
                <Kept of={one} />
              </th>
              <td className="number">{days(one.period_days, "for good")}</td>
              <td>{one.retention_class}</td>
              <td className="number">
                {days(one.floor_days, "no floor")}, {days(one.ceiling_days, "no ceiling")}
              </td>
              <td>
                <Time at={one.in_force_from} />
              </td>
              <td>
                <By of={one} /> <Time at={one.set_at} />
              </td>
              <td>
                <Untrusted text={one.reason} limit={300} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function days(number: number | null, without: string): string {
  return number === null ? without : `${whole(number)} days`;
}

function SetDialog({ onClose }: { onClose: () => void }) {
  const queries = useQueryClient();
  const purpose = useStated();
  const [kept, setKept] = useState({
    records: "",
    class: "ai_act",
    days: "",
    model: "",
    floor: "",
    ceiling: "",
    reason: "",
  });
  const change = (name: keyof typeof kept) => (event: { target: { value: string } }) =>
    setKept({ ...kept, [name]: event.target.value });
  const number = (text: string) => (text === "" ? null : Number(text));
  const set = useMutation({
    mutationFn: () =>
      take(
        api.POST("/v1/retention", {
          headers: purpose.headers,
          body: {
            records: kept.records === "" ? null : kept.records,
            retention_class: kept.class,
            period_days: number(kept.days),
            floor_days: number(kept.floor),
            ceiling_days: number(kept.ceiling),
            model: kept.records !== "" || kept.model.trim() === "" ? null : kept.model.trim(),
            reason: kept.reason,
          } as Schemas["AskedPeriod"],
        }),
      ),
    onSuccess: async () => {
      await queries.invalidateQueries({ queryKey: ["retention"] });
      await queries.invalidateQueries({ queryKey: ["retention-versions"] });
      onClose();
    },
  });
  return (
    <DialogBox title="Set a period" isOpen onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          set.mutate();
        }}
      >
        <Field label="Of" hint="Records are of the tenant, and kept no shorter than what they tell about.">
          <select value={kept.records} onChange={change("records")}>
            <option value="">readings</option>
            {Object.entries(RECORDS).map(([name, shown]) => (
              <option key={name} value={name}>
                {shown}
              </option>
            ))}
          </select>
        </Field>
        <Field label="Class">
          <select value={kept.class} onChange={change("class")}>
            {CLASSES.map(([name, floor, ceiling]) => (
              <option key={name} value={name}>
                {name}: {floor}, {ceiling}
              </option>
            ))}
          </select>
        </Field>
        <Field label="Days after their capture" hint="Empty: rows are kept for good.">
          <input type="number" min={1} max={36525} value={kept.days} onChange={change("days")} />
        </Field>
        {kept.records === "" && (
          <Field label="Model" hint="Empty: all that have none of their own.">
            <input value={kept.model} onChange={change("model")} />
          </Field>
        )}
        <Field label="Floor in days, optional" hint="At least so many; more than the class wants.">
          <input type="number" min={1} max={36525} value={kept.floor} onChange={change("floor")} />
        </Field>
        <Field label="Ceiling in days, optional" hint="At most so many; fewer than the class allows.">
          <input type="number" min={1} max={36525} value={kept.ceiling} onChange={change("ceiling")} />
        </Field>
        <Field label="Why" hint="It cannot be changed later: no personal data.">
          <input value={kept.reason} maxLength={2000} required onChange={change("reason")} />
        </Field>
        <PurposeFields of={purpose} />
        <Refusal error={set.error} />
        <button type="submit" className="primary" disabled={set.isPending || purpose.fault !== null}>
          Set it
        </button>
      </form>
    </DialogBox>
  );
}

function removedOf(document: Record<string, unknown>): string {
  const found = Object.entries(RECORDS).find(([name]) => name === document.records);
  return found === undefined ? "several models, or all" : found[1];
}

function Certificates() {
  const found = useInfiniteQuery({
    queryKey: ["certificates"],
    initialPageParam: null as string | null,
    queryFn: ({ pageParam, signal }) =>
      take(
        api.GET("/v1/retention/certificates", {
          params: { query: { limit: 50, ...(pageParam === null ? {} : { cursor: pageParam }) } },
          signal,
        }),
      ),
    getNextPageParam: (last) => last.next_cursor,
  });
  const items = found.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <section className="panel" aria-labelledby="certificates">
      <h2 id="certificates">Deletion certificates</h2>
      {found.isPending && <Loading what="certificates" />}
      {found.error !== null && <Failed error={found.error} retry={() => void found.refetch()} />}
      {found.isSuccess && items.length === 0 && <Empty>Nothing was removed yet.</Empty>}
      <ul className="plain-list">
        {items.map((one) => (
          <li key={one.id}>
            <Time at={one.issued_at} /> <Badge>{one.reason}</Badge>{" "}
            {one.model === null ? removedOf(one.document) : <Untrusted text={one.model} limit={120} />}
            <details>
              <summary>Certificate {one.id}</summary>
              <Untrusted text={JSON.stringify(one.document, null, 2)} className="mono" />
              <p className="quiet">
                Its proof: <code>GET /v1/retention/certificates/{one.id}</code>
              </p>
            </details>
          </li>
        ))}
      </ul>
      {found.hasNextPage && <More of={found} what="certificates" />}
    </section>
  );
}
