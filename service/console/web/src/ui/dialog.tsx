import { lazy, Suspense, useEffect, useState } from "react";
import type { DialogProps } from "./dialog-modal";

const load = () => import("./dialog-modal");
const Modal = lazy(load);

/** A modal dialog, whose script comes once the page has nothing better to do, or when it is opened. */
export function DialogBox(props: DialogProps) {
  const [wasOpen, setWasOpen] = useState(props.isOpen);
  if (props.isOpen && !wasOpen) setWasOpen(true);
  useEffect(() => {
    // What does not come is asked for again, and told, where the dialog is opened. Safari has no such callback.
    window.requestIdleCallback?.(() => void load().catch(() => {}));
  }, []);
  if (!wasOpen) return null;
  return (
    <Suspense fallback={null}>
      <Modal {...props} />
    </Suspense>
  );
}
