import { lazy, Suspense, useEffect, useState } from "react";
import type { DialogProps } from "./dialog-modal";

const load = () => import("./dialog-modal");
const Modal = lazy(load);
const AFTER_MS = 2000;

/** A modal dialog, whose script comes once the page has nothing better to do, or when it is opened. */
export function DialogBox(props: DialogProps) {
  const [wasOpen, setWasOpen] = useState(props.isOpen);
  if (props.isOpen && !wasOpen) setWasOpen(true);
  useEffect(() => {
    // What does not come is asked for again, and told, where the dialog is opened. Safari has no such callback.
    const ask = () => window.requestIdleCallback?.(() => void load().catch(() => {}));
    // A page that waits for its figures is idle too, and must not be kept from showing them.
    const timer = setTimeout(ask, AFTER_MS);
    return () => clearTimeout(timer);
  }, []);
  if (!wasOpen) return null;
  return (
    <Suspense fallback={null}>
      <Modal {...props} />
    </Suspense>
  );
}
