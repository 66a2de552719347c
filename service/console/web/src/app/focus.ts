/** The focus is never lost: what had it and went leaves it to the nearest part of the page that stays. */
import { useEffect } from "react";

const PARTS = "section, article, aside, form, dialog, main";
const HEADINGS = "h1, h2, h3";

/**
 * Watch over the focus for as long as the frame is shown.
 *
 * A browser drops the focus of what is removed, hidden or disabled without a word. A button that is disabled
 * only while its answer comes has it back afterwards, unless the user went on meanwhile.
 */
export function useFocusKept(): void {
  useEffect(() => {
    let last: HTMLElement | null = null;
    let around: Element[] = [];
    let lent: { by: HTMLElement; to: HTMLElement } | null = null;

    // Browsers forget that keys are used where the focus went by way of nothing.
    function byKeys() {
      document.documentElement.dataset.by = "keys";
    }
    function note(event: FocusEvent) {
      if (!(event.target instanceof HTMLElement)) return;
      last = event.target;
      around = ancestorsOf(last);
    }
    function look() {
      if (lent !== null && isThere(lent.by)) {
        const { by, to } = lent;
        lent = null;
        if (document.activeElement === to) return by.focus();
      }
      if (last === null || isThere(last) || !isNowhere()) return;
      const to = placeIn(around);
      lent = last.isConnected && to !== null ? { by: last, to } : null;
      to?.focus();
    }
    function byPointer() {
      document.documentElement.dataset.by = "pointer";
      last = null; // whoever points elsewhere lets it go on purpose
    }
    // The browser itself drops it only when it draws: later than what changed the page.
    const changes = new MutationObserver(() => requestAnimationFrame(look));
    changes.observe(document.body, { subtree: true, childList: true, attributeFilter: ["disabled"] });
    document.addEventListener("keydown", byKeys, true);
    document.addEventListener("pointerdown", byPointer, true);
    document.addEventListener("focusin", note);
    return () => {
      changes.disconnect();
      document.removeEventListener("keydown", byKeys, true);
      document.removeEventListener("pointerdown", byPointer, true);
      document.removeEventListener("focusin", note);
    };
  }, []);
}

/** Whether no part of the page has the focus. */
export function isNowhere(): boolean {
  const at = document.activeElement;
  return at === null || at === document.body || (at instanceof HTMLElement && !isThere(at));
}

function isThere(element: HTMLElement): boolean {
  return element.isConnected && !element.matches(":disabled") && element.getClientRects().length > 0;
}

function ancestorsOf(element: Element): Element[] {
  const found: Element[] = [];
  for (let at = element.parentElement; at !== null; at = at.parentElement) found.push(at);
  return found;
}

/** Return the heading of the innermost part that is still there, or the part itself; null without any. */
function placeIn(around: readonly Element[]): HTMLElement | null {
  const part = around.find((one) => one instanceof HTMLElement && one.matches(PARTS) && isThere(one));
  const place = part?.querySelector<HTMLElement>(HEADINGS) ?? (part as HTMLElement | undefined) ?? null;
  if (place !== null && !place.hasAttribute("tabindex")) place.tabIndex = -1;
  return place;
}
