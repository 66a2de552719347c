/** Keys, policy, concepts and retention: a section each, by its own address. */
import { type ComponentType, type LazyExoticComponent, lazy, Suspense } from "react";
import { Link, Redirect, useParams } from "wouter";
import { Page } from "@/ui/page";
import { Loading } from "@/ui/states";
import "./admin.css";

type Section = { name: string; section: LazyExoticComponent<ComponentType> };

const SECTIONS: Readonly<Record<string, Section>> = {
  keys: { name: "Keys", section: lazy(() => import("./keys")) },
  policy: { name: "Policy", section: lazy(() => import("./policy")) },
  concepts: { name: "Concepts", section: lazy(() => import("./concepts")) },
  retention: { name: "Retention", section: lazy(() => import("./retention")) },
};

export default function AdminPage() {
  const { section = "" } = useParams<{ section?: string }>();
  const found = SECTIONS[section];
  if (found === undefined) return <Redirect to="/admin/keys" replace />;
  const { name, section: Shown } = found;
  return (
    <Page
      title={name}
      actions={
        <nav className="row" aria-label="Administration">
          {Object.entries(SECTIONS).map(([path, { name: label }]) => (
            <Link key={path} href={`/admin/${path}`} aria-current={path === section ? "page" : undefined}>
              {label}
            </Link>
          ))}
        </nav>
      }
    >
      <Suspense fallback={<Loading what="the section" />}>
        <Shown />
      </Suspense>
    </Page>
  );
}
