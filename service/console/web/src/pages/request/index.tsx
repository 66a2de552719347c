import { Page } from "@/ui/page";
import { Absent } from "@/ui/states";

export default function RequestPage() {
  return (
    <Page title="Request">
      <Absent what="This page" why="It is not part of this build." />
    </Page>
  );
}
