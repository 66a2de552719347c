/** Every page: its address, its place in the navigation, and the chunk that holds it. */
import { type ComponentType, type LazyExoticComponent, lazy } from "react";

export type PageRoute = {
  /** Below the console's base, in wouter's syntax. */
  path: string | RegExp;
  page: LazyExoticComponent<ComponentType>;
};

export const ROUTES: readonly PageRoute[] = [
  { path: "/", page: lazy(() => import("@/pages/overview")) },
  { path: /^\/requests\/(?<request>[\s\S]+)$/, page: lazy(() => import("@/pages/request")) },
  { path: "/search", page: lazy(() => import("@/pages/search")) },
  { path: "/review/:incident?", page: lazy(() => import("@/pages/review")) },
  { path: "/coverage", page: lazy(() => import("@/pages/coverage")) },
  { path: "/calibration", page: lazy(() => import("@/pages/calibration")) },
  { path: "/admin/:section?", page: lazy(() => import("@/pages/admin")) },
];

export const NAVIGATION: readonly { to: string; name: string }[] = [
  { to: "/", name: "Overview" },
  { to: "/search", name: "Search" },
  { to: "/review", name: "Review" },
  { to: "/coverage", name: "Coverage" },
  { to: "/calibration", name: "Calibration" },
  { to: "/admin", name: "Admin" },
];
