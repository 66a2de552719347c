import { Page } from "@/ui/page";
import { Absent } from "@/ui/states";

export default function AdminPage() {
  return (
    <Page title="Admin">
      <Absent what="This page" why="It is not part of this build." />
    </Page>
  );
}
