/** Keys, policy, concepts and retention: a section each, by its own address. */
import type { ComponentType } from "react";
import { Link, Redirect, useParams } from "wouter";
import { Page } from "@/ui/page";
import Concepts from "./concepts";
import Keys from "./keys";
import Policy from "./policy";
import Retention from "./retention";
import "./admin.css";

type Section = { name: string; section: ComponentType };

const SECTIONS: Readonly<Record<string, Section>> = {
  keys: { name: "Keys", section: Keys },
  policy: { name: "Policy", section: Policy },
  concepts: { name: "Concepts", section: Concepts },
  retention: { name: "Retention", section: Retention },
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
      <Shown />
    </Page>
  );
}
