/** Searches that the user named, kept in this browser: each is a link. Pure but for `storage`. */

export type Saved = { name: string; address: string };
type Storage = Pick<globalThis.Storage, "getItem" | "setItem">;

const KEY = "subtext.searches";
const MOST = 50;
export const LONGEST_NAME = 80;

/** Read the list; what somebody else wrote there, or what is broken, is left out. */
export function readSaved(storage: Storage): Saved[] {
  try {
    const found: unknown = JSON.parse(storage.getItem(KEY) ?? "[]");
    return Array.isArray(found) ? found.filter(isSaved).slice(0, MOST) : [];
  } catch {
    return [];
  }
}

/** Write the list and return it; storage may be denied or full, and it is kept until the page is left. */
export function writeSaved(storage: Storage, saved: readonly Saved[]): Saved[] {
  const kept = saved.slice(0, MOST);
  try {
    storage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // see above
  }
  return kept;
}

/** Put a search at the head of the list, in place of one of the same name. */
export function withSaved(saved: readonly Saved[], name: string, address: string): Saved[] {
  const clean = name.trim().slice(0, LONGEST_NAME);
  if (clean === "") return [...saved];
  return [{ name: clean, address }, ...saved.filter((one) => one.name !== clean)];
}

function isSaved(found: unknown): found is Saved {
  const one = found as Partial<Saved> | null;
  return typeof one === "object" && typeof one?.name === "string" && typeof one.address === "string";
}
