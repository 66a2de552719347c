import { Page } from "@/ui/page";
import { Absent } from "@/ui/states";

export default function CoveragePage() {
  return (
    <Page title="Coverage">
      <Absent what="This page" why="It is not part of this build." />
    </Page>
  );
}
