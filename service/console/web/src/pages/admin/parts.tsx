/** What the sections share: purposes that an act needs, faults by field, and tables that scroll by themselves. */
import type { ReactNode } from "react";
import { useState } from "react";
import { ApiError } from "@/api/client";
import { noteFault, PURPOSES, type PurposeCode } from "@/app/purpose-store";
import { Field } from "@/ui/field";

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
