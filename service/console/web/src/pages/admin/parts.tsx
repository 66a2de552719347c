/** What the sections share: purposes that an act needs, faults by field, and tables that scroll by themselves. */
import { useMutation } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { ApiError } from "@/api/client";
import { noteFault, PURPOSES, type PurposeCode } from "@/app/purpose-store";
import { DialogBox } from "@/ui/dialog";
import { Field } from "@/ui/field";
import { Untrusted } from "@/ui/untrusted";

export type Stated = { code: PurposeCode; note: string };

/** A purpose that is stated for one act, whether or not its actor may read text. */
export function useStated() {
  const [stated, setStated] = useState<Stated>({ code: "compliance_review", note: "" });
  const fault = noteFault(stated.note);
  const note = stated.note.trim();
  return {
    stated,
    setStated,
    fault,
    headers: { "Subtext-Purpose": note === "" ? stated.code : `${stated.code}; ${note}` },
  };
}

export function PurposeFields({ of }: { of: ReturnType<typeof useStated> }) {
  const { stated, setStated, fault } = of;
  return (
    <>
      <Field label="Purpose" hint="Who did what, when and why stays in the access log for good.">
        <select
          value={stated.code}
          onChange={(event) => setStated({ ...stated, code: event.target.value as PurposeCode })}
        >
          {Object.entries(PURPOSES).map(([value, name]) => (
            <option key={value} value={value}>
              {name}
            </option>
          ))}
        </select>
      </Field>
      <Field label="Note to the purpose, optional" fault={fault}>
        <input
          value={stated.note}
          maxLength={600}
          onChange={(event) => setStated({ ...stated, note: event.target.value })}
        />
      </Field>
    </>
  );
}

type Headers = ReturnType<typeof useStated>["headers"];
type ActProps = {
  title: string;
  /** What it leads to. */
  children: ReactNode;
  /** What is asked, beside the field for the reason. */
  why: string;
  /** What the button says. */
  does: string;
  /** Do it, and read again what it changed; what it raises is shown here. */
  act: (reason: string, headers: Headers) => Promise<unknown>;
  onClose: () => void;
};

/** An act that takes a reason, which is kept with it, and a purpose. */
export function ActDialog({ title, children, why, does, act, onClose }: ActProps) {
  const purpose = useStated();
  const [reason, setReason] = useState("");
  const asked = useMutation({ mutationFn: () => act(reason, purpose.headers), onSuccess: onClose });
  return (
    <DialogBox title={title} isOpen onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          asked.mutate();
        }}
      >
        <p>{children}</p>
        <Field label={why} hint="It cannot be changed later: no personal data.">
          <input
            value={reason}
            maxLength={2000}
            required
            onChange={(event) => setReason(event.target.value)}
          />
        </Field>
        <PurposeFields of={purpose} />
        <Refusal error={asked.error} />
        <button type="submit" className="primary" disabled={asked.isPending || purpose.fault !== null}>
          {does}
        </button>
      </form>
    </DialogBox>
  );
}

/** What the service refused, by its field where it named one. */
export function Refusal({ error }: { error: Error | null }) {
  if (error === null) return null;
  const fields = error instanceof ApiError ? (error.problem?.errors ?? []) : [];
  return (
    <div className="fault" role="alert">
      {fields.length === 0 ? (
        <p>{error.message}</p>
      ) : (
        <ul className="plain-list">
          {fields.map((wrong) => (
            <li key={`${wrong.field}${wrong.code}`}>
              <code>{wrong.field}</code>: {wrong.message}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

/** A table that scrolls by itself, so that a narrow page does not. */
export function Scroll({ label, children }: { label: string; children: ReactNode }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to take the focus to be scrolled by keys
    <section className="scroll" aria-label={label} tabIndex={0}>
      {children}
    </section>
  );
}

/** Who did it, as the access log has him. */
export function By({ of }: { of: { key_name: string | null; person: string | null } }): ReactNode {
  return <Untrusted text={of.person ?? of.key_name ?? "nobody named"} limit={120} />;
}

export function More({
  of,
  what,
}: {
  of: { isFetching: boolean; fetchNextPage: () => unknown };
  what: string;
}) {
  return (
    <button type="button" disabled={of.isFetching} onClick={() => void of.fetchNextPage()}>
      Show older {what}
    </button>
  );
}
