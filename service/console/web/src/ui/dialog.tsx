import { type ReactNode, useId, useLayoutEffect, useRef } from "react";

type Props = { title: string; isOpen: boolean; onClose: () => void; children: ReactNode };

/**
 * A modal dialog: keeps the focus, gives it back, and closes by Esc, as the browser does it.
 *
 * It is there as soon as it is asked for, so that the keys of whoever types on at once are its keys.
 */
export function DialogBox({ isOpen, ...props }: Props) {
  return isOpen ? <Opened {...props} /> : null;
}

function Opened({ title, onClose, children }: Omit<Props, "isOpen">) {
  const id = useId();
  const box = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const opened = box.current;
    if (opened === null) return;
    opened.showModal();
    firstControl(opened).focus();
    return () => opened.close();
  }, []);
  return (
    <dialog
      ref={box}
      className="modal"
      aria-labelledby={id}
      onClose={() => {
        if (box.current?.open === false) onClose();
      }}
      onPointerDown={(event) => {
        if (event.target === event.currentTarget) onClose();
      }}
    >
      <div className="dialog">
        <div className="dialog-head">
          <h2 id={id} tabIndex={-1}>
            {title}
          </h2>
          <button type="button" className="plain" onClick={onClose} aria-label="Close">
            ✕
          </button>
        </div>
        {children}
      </div>
    </dialog>
  );
}

/** Where its form begins; without one, its title, so that it is read from the top. */
function firstControl(dialog: HTMLDialogElement): HTMLElement {
  const control = dialog.querySelector<HTMLElement>("form :is(input, select, textarea):enabled");
  return control ?? dialog.querySelector<HTMLElement>("h2") ?? dialog;
}
