/** What is shown in place of an answer: it is coming, it failed, there is none, or it does not exist here. */
import type { ReactNode } from "react";
import { ApiError } from "@/api/client";

export function Loading({ what }: { what: string }) {
  return (
    <p className="state" role="status">
      Loading {what}…
    </p>
  );
}

export function Failed({ error, retry }: { error: Error; retry?: () => void }) {
  const code = error instanceof ApiError ? error.code : error.name;
  return (
    <div className="state fault" role="alert">
      <p>{error.message}</p>
      <p className="quiet">
        <code>{code}</code>
      </p>
      {retry && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Nothing was found; says among what. */
export function Empty({ children }: { children: ReactNode }) {
  return <div className="state">{children}</div>;
}

/** A figure or a part that does not exist here: never to be read as zero. */
export function Absent({ what, why }: { what: string; why: ReactNode }) {
  return (
    <div className="state absent">
      <p>
        <strong>{what}: not available.</strong> {why}
      </p>
    </div>
  );
}
