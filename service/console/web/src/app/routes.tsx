/** Every page: its address, its place in the navigation, and the chunk that holds it. */
import { type ComponentType, type LazyExoticComponent, lazy } from "react";

type Load = () => Promise<{ default: ComponentType }>;

export type PageRoute = {
  /** Below the console's base, in wouter's syntax. */
  path: string | RegExp;
  /** The first part of such a path. */
  first: string;
  page: LazyExoticComponent<ComponentType>;
  load: Load;
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

function route(path: string | RegExp, first: string, load: Load): PageRoute {
  return { path, first, page: lazy(load), load };
}

/** Let the page at a path below the console's base come while it is found out who is signed in. */
export function loadAhead(path: string): void {
  const wanted = path.split("/")[1] ?? "";
  // What does not come is asked for again, and told, where the page is shown.
  ROUTES.find(({ first }) => first === wanted)
    ?.load()
    .catch(() => {});
}

export const NAVIGATION: readonly { to: string; name: string }[] = [
  { to: "/", name: "Overview" },
  { to: "/search", name: "Search" },
  { to: "/review", name: "Review" },
  { to: "/coverage", name: "Coverage" },
  { to: "/calibration", name: "Calibration" },
  { to: "/admin", name: "Admin" },
];
