import { type ReactNode, useEffect } from "react";

type Props = { title: string; children: ReactNode; actions?: ReactNode };

/** A page's heading, the document's title, and what can be done with the whole page. */
export function Page({ title, children, actions }: Props) {
  useEffect(() => {
    document.title = `${title} · Subtext`;
  }, [title]);
  return (
    <div className="page">
      <div className="page-head">
        <h1>{title}</h1>
        {actions}
      </div>
      {children}
    </div>
  );
}
