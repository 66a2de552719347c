/** A page's first answers are asked for before the script that draws it has come. */
import { type Rights, SESSION_QUERY } from "@/app/caller";
import { queries } from "@/app/queries";
import { told } from "@/app/told";
import { askAhead as admin } from "@/pages/admin/ahead";
import { askAhead as calibration } from "@/pages/calibration/ahead";
import { askAhead as coverage } from "@/pages/coverage/ahead";
import { askAhead as overview } from "@/pages/overview/ahead";
import { askAhead as requests } from "@/pages/request/ahead";
import { askAhead as review } from "@/pages/review/ahead";
import { askAhead as search } from "@/pages/search/ahead";

/** By the first part of a page's path. */
const PAGES: Readonly<Record<string, (rights: Rights) => void>> = {
  "": overview,
  admin,
  calibration,
  coverage,
  requests,
  review,
  search,
};

/** Return the first part of a path below the console's base. */
export function firstOf(path: string): string {
  return path.split("/")[1] ?? "";
}

/** Ask who is signed in, and for what the page at a path shows first of what he may see. */
export async function askAhead(path: string): Promise<void> {
  const page = Object.hasOwn(PAGES, firstOf(path)) ? PAGES[firstOf(path)] : undefined;
  const scopes = told("scopes")?.split(" ");
  const caller = queries.fetchQuery(SESSION_QUERY).catch(() => null); // told where it is shown
  if (scopes !== undefined) page?.({ scopes });
  const found = await caller;
  if (scopes === undefined && found !== null) page?.(found);
}
