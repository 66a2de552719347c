import { cloneElement, type ReactElement, useId } from "react";

type Control = {
  id?: string;
  "aria-describedby"?: string | undefined;
  "aria-invalid"?: boolean | undefined;
};
type Props = {
  label: string;
  hint?: string;
  /** What is wrong with the value, and what would be right. */
  fault?: string | null;
  children: ReactElement<Control>;
};

/** One input with its label, hint and fault, joined for screen readers. */
export function Field({ label, hint, fault, children }: Props) {
  const id = useId();
  const told = [hint && `${id}-hint`, fault && `${id}-fault`].filter(Boolean).join(" ");
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      {cloneElement(children, {
        id,
        "aria-describedby": told || undefined,
        "aria-invalid": fault ? true : undefined,
      })}
      {hint && (
        <p id={`${id}-hint`} className="hint">
          {hint}
        </p>
      )}
      {fault && (
        <p id={`${id}-fault`} className="fault" role="alert">
          {fault}
        </p>
      )}
    </div>
  );
}
