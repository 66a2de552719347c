/** Every page: its address, its place in the navigation, and the chunk that holds it. */
import { type ComponentType, type LazyExoticComponent, lazy, useState } from "react";
import { firstOf } from "@/app/ahead";

type Chunk = { default: ComponentType };

export type PageRoute = {
  /** Below the console's base, in wouter's syntax. */
  path: string | RegExp;
  /** The first part of such a path. */
  first: string;
  load: () => Promise<Chunk>;
  later: LazyExoticComponent<ComponentType>;
  /** The page itself, once it has come. */
  there: ComponentType | null;
};

export const ROUTES: readonly PageRoute[] = [
  route("/", "", () => import("@/pages/overview")),
  route(/^\/requests\/(?<request>[\s\S]+)$/, "requests", () => import("@/pages/request")),
  route("/search", "search", () => import("@/pages/search")),
  route("/review/:incident?", "review", () => import("@/pages/review")),
  route("/coverage", "coverage", () => import("@/pages/coverage")),
  route("/calibration", "calibration", () => import("@/pages/calibration")),
  route("/admin/:section?", "admin", () => import("@/pages/admin")),
];

function route(path: string | RegExp, first: string, load: () => Promise<Chunk>): PageRoute {
  const made: PageRoute = { path, first, load: loaded, later: lazy(loaded), there: null };
  async function loaded(): Promise<Chunk> {
    const chunk = await load();
    made.there = chunk.default;
    return chunk;
  }
  return made;
}

/** The page of a route. What is lazy React draws only after a pause, even when it has come by then. */
export function PageOf({ route }: { route: PageRoute }) {
  const [Page] = useState<ComponentType>(() => route.there ?? route.later); // another one would begin anew
  return <Page />;
}

/** Let the script of the page at a path below the console's base come. */
export async function loadPage(path: string): Promise<void> {
  try {
    await ROUTES.find(({ first }) => first === firstOf(path))?.load();
  } catch {
    // What does not come is asked for again, and told, where the page is shown.
  }
}

export const NAVIGATION: readonly { to: string; name: string }[] = [
  { to: "/", name: "Overview" },
  { to: "/search", name: "Search" },
  { to: "/review", name: "Review" },
  { to: "/coverage", name: "Coverage" },
  { to: "/calibration", name: "Calibration" },
  { to: "/admin", name: "Admin" },
];
