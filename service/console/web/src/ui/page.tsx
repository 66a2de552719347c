import { type ReactNode, useEffect, useRef } from "react";

type Props = { title: string; children: ReactNode; actions?: ReactNode };

/** Whether no page was shown yet: at the first one the browser itself begins at the top. */
let isFirst = true;

/** A page's heading, the document's title, and what can be done with the whole page. */
export function Page({ title, children, actions }: Props) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · Subtext`;
    // Who came here by a link reads on from the heading, not from the link that is gone.
    const main = heading.current?.closest("main");
    const at = document.activeElement;
    const isInPage = at !== main && main?.contains(at);
    if (!isFirst && !isInPage) heading.current?.focus();
    isFirst = false;
  }, [title]);
  return (
    <div className="page">
      <div className="page-head">
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        {actions}
      </div>
      {children}
    </div>
  );
}
