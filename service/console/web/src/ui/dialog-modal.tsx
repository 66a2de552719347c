import { type ReactNode, useEffect } from "react";
import { Dialog, Heading, Modal, ModalOverlay } from "react-aria-components";

export type DialogProps = { title: string; isOpen: boolean; onClose: () => void; children: ReactNode };

/** The dialog itself, apart because it is a third of the script and seldom opened: keeps the focus, gives it back, closes by Esc. */
export default function DialogModal({ title, isOpen, onClose, children }: DialogProps) {
  useEffect(() => {
    if (!isOpen) return;
    // A button that is disabled while its answer comes loses the focus, and Esc with it.
    function press(event: KeyboardEvent) {
      if (event.key === "Escape" && !event.defaultPrevented) onClose();
    }
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, [isOpen, onClose]);
  return (
    <ModalOverlay
      className="overlay"
      isOpen={isOpen}
      isDismissable
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
    >
      <Modal className="modal">
        <Dialog className="dialog">
          <div className="dialog-head">
            <Heading slot="title">{title}</Heading>
            <button type="button" className="plain" onClick={onClose} aria-label="Close">
              ✕
            </button>
          </div>
          {children}
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
