/** Single-key shortcuts. They can be switched off (WCAG 2.1.4), and rest while something is typed or a dialog is open. */
import { useLayoutEffect, useRef, useSyncExternalStore } from "react";

export type Shortcuts = Readonly<Record<string, (event: KeyboardEvent) => void>>;

const KEY = "subtext.shortcuts";
const heard = new Set<() => void>();
let isOn = readIsOn();

function readIsOn(): boolean {
  try {
    return localStorage.getItem(KEY) !== "off";
  } catch {
    return true;
  }
}

export function setShortcutsOn(on: boolean): void {
  isOn = on;
  try {
    localStorage.setItem(KEY, on ? "on" : "off");
  } catch {
    // storage may be denied
  }
  for (const tell of heard) tell();
}

export function useShortcutsOn(): boolean {
  return useSyncExternalStore(
    (tell) => {
      heard.add(tell);
      return () => heard.delete(tell);
    },
    () => isOn,
  );
}

/** Run the function whose name is the key: `KeyboardEvent.key` in lower case, as "j", "enter" or "escape". */
export function useShortcuts(shortcuts: Shortcuts, isActive = true): void {
  const newest = useRef(shortcuts);
  // With the frame that shows what the keys are for: a key may follow it at once.
  useLayoutEffect(() => {
    newest.current = shortcuts;
  });
  useLayoutEffect(() => {
    if (!isActive) return;
    function press(event: KeyboardEvent) {
      if (!isOn || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      if (isTyping(event.target) || document.querySelector("dialog[open]") !== null) return;
      const name = event.key.toLowerCase();
      if (isPressed(event.target) && (name === "enter" || name === " ")) return;
      const run = newest.current[name];
      if (run === undefined) return;
      event.preventDefault();
      run(event);
    }
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, [isActive]);
}

function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement && target.closest("input, textarea, select, [contenteditable]") !== null
  );
}

function isPressed(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.closest("a[href], button, summary") !== null;
}
